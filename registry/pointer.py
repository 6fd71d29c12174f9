"""The live pointer: one model's entry in the `models.config` that a registry's models share."""

from registry import serving_config
from registry.documents import Document
from registry.interface import Traffic
from registry.parts import Keep
from registry.serving_config import ModelConfig

CONFIG = "models.config"


class ConfigPointer:
    """Which versions of the model `name` answer and which are loaded, as TF Serving reads it."""

    def __init__(self, document: Document, name: str, base_path: str):
        """Points into `models.config`, which need not exist; versions lie in `base_path`."""
        self._document = document
        self._name = name
        self._base_path = base_path

    def read(self) -> Traffic:
        """Returns who answers; nobody where the file or the model's entry is absent.

        Raises:
            RegistryError: the file is malformed.
        """
        mine = self._mine()
        return Traffic(None) if mine is None else serving_config.traffic(mine)

    def loaded(self) -> frozenset[int]:
        """Returns the versions that a server of this file loads.

        Raises:
            RegistryError: the file is malformed.
        """
        mine = self._mine()
        return frozenset(() if mine is None else mine.versions)

    def move(self, traffic: Traffic, ready: tuple[int, ...], keep: Keep) -> None:
        """Says in one step who answers; see `LivePointer.move`.

        Raises:
            RegistryError: the file is malformed, holds what rewriting would lose, or was replaced
                meanwhile.
        """
        models = self._models()
        own = {
            label: version
            for model in models
            if model.name == self._name
            for label, version in model.labels.items()
            if not serving_config.is_ours(label)
        }
        labels = own | serving_config.labels(traffic)
        mine = ModelConfig(
            name=self._name,
            base_path=self._base_path,
            versions=tuple(sorted({*labels.values(), *ready})),
            labels=labels,
        )
        others = [model for model in models if model.name != self._name]
        content = serving_config.render([*others, mine]).encode()
        keep()
        self._document.write(content)

    def fence(self) -> None:
        """Makes a move that was overtaken fail, where the file is one that can be fenced."""
        self._document.fence()

    def tidy(self, ready: tuple[int, ...], keep: Keep) -> None:
        """Nothing follows a move here."""

    def _mine(self) -> ModelConfig | None:
        return next((model for model in self._models() if model.name == self._name), None)

    def _models(self) -> tuple[ModelConfig, ...]:
        content = self._document.read()
        if content is None:
            return ()
        return serving_config.parse(content.decode(errors="replace"))
