"""The live pointer: one model's entry in the `models.config` that a registry's models share."""

from pathlib import Path

from registry import durable, serving_config
from registry.serving_config import LIVE, ModelConfig


class Pointer:
    """Which version of the model `name` is live, as TF Serving reads it."""

    def __init__(self, path: Path, name: str, base_path: Path):
        """Points into the file `path`, which need not exist; versions lie in `base_path`."""
        self._path = path
        self._name = name
        self._base_path = base_path

    def read(self) -> int | None:
        """Returns the live version's number, None when nothing is live.

        Raises:
            RegistryError: the file is malformed.
        """
        for model in self._models():
            if model.name == self._name:
                return model.labels.get(LIVE)
        return None

    def move(self, number: int) -> None:
        """Makes a version live by one rename; what was live stays loaded, other models untouched.

        Raises:
            RegistryError: the file is malformed, or holds what rewriting would lose.
        """
        live = self.read()
        loaded = {number} if live is None else {number, live}
        mine = ModelConfig(
            name=self._name,
            base_path=str(self._base_path),
            versions=tuple(sorted(loaded)),
            labels={LIVE: number},
        )
        others = [model for model in self._models() if model.name != self._name]
        durable.write(self._path, serving_config.render([*others, mine]).encode())

    def _models(self) -> tuple[ModelConfig, ...]:
        return serving_config.parse(self._path.read_text()) if self._path.exists() else ()
