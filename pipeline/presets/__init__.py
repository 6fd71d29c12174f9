"""Presets are the documentation: each module says what it does, what to expect, and the command."""

import importlib
import pkgutil

from pipeline.config import PipelineConfig
from schema.errors import CortexflowError


class UnknownPreset(CortexflowError):
    """No preset has this name."""


def names() -> list[str]:
    """Names of all presets, sorted."""
    return sorted(module.name for module in pkgutil.iter_modules(__path__))


def describe(name: str) -> str:
    """The preset's own words: what it does, what to expect, time, command."""
    return (_module(name).__doc__ or "").strip()


def load(name: str) -> PipelineConfig:
    """The preset's config.

    Raises:
        UnknownPreset: there is none of this name.
    """
    config: PipelineConfig = _module(name).CONFIG
    return config


def _module(name: str):
    if name not in names():
        raise UnknownPreset(f"No preset {name!r}. There are: {', '.join(names())}.")
    return importlib.import_module(f"{__name__}.{name}")
