"""The live pointer: one model's entry in the `models.config` that a registry's models share."""

from collections.abc import Iterable
from pathlib import Path

from registry import durable, serving_config
from registry.interface import Traffic
from registry.serving_config import ModelConfig


class Pointer:
    """Which versions of the model `name` answer and which are loaded, as TF Serving reads it."""

    def __init__(self, path: Path, name: str, base_path: Path):
        """Points into the file `path`, which need not exist; versions lie in `base_path`."""
        self._path = path
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

    def move(self, traffic: Traffic, ready: Iterable[int] = ()) -> None:
        """Says by one rename who answers; other models and people's own labels are untouched.

        Args:
            traffic: who answers.
            ready: versions to be loaded besides, so that going back to them needs no loading.

        Raises:
            RegistryError: the file is malformed, or holds what rewriting would lose.
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
            base_path=str(self._base_path),
            versions=tuple(sorted({*labels.values(), *ready})),
            labels=labels,
        )
        others = [model for model in models if model.name != self._name]
        durable.write(self._path, serving_config.render([*others, mine]).encode())

    def _mine(self) -> ModelConfig | None:
        return next((model for model in self._models() if model.name == self._name), None)

    def _models(self) -> tuple[ModelConfig, ...]:
        try:
            text = self._path.read_text()
        except FileNotFoundError:
            return ()
        return serving_config.parse(text)
