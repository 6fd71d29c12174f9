"""Where a run's versions go, and what is live there."""

from typing import TYPE_CHECKING

from pipeline.config import PipelineConfig
from pipeline.workspace import Workspace

if TYPE_CHECKING:
    from registry.interface import Registry


def address(config: PipelineConfig, workspace: Workspace) -> str:
    """The registry's folder or URI: the setting's, else the workspace's own."""
    return config.registry or str(workspace.registry)


def registry(config: PipelineConfig, workspace: Workspace) -> "Registry":
    """The registry of the run's model, which need not hold anything yet.

    Raises:
        RegistryError: the setting `registry` names no place that is known.
    """
    from registry.opening import open_registry

    return open_registry(address(config, workspace), config.model_name, create=True)
