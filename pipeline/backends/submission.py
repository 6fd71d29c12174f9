"""From a preset, or a compiled file, to what is sent to a cluster."""

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pipeline.backends import datasets, packages
from pipeline.backends.interface import BackendError, RunRequest
from pipeline.backends.packages import Package
from pipeline.cluster import Target
from pipeline.config import PipelineConfig
from schema.places import is_remote

DATASET = "dataset"  # the parameter that says where the imported dataset lies
# What outlives a run, below the root: who was judged by which test people, and unfinished training.
KEPT = {"touches": "touches", "checkpoint_root": "checkpoints"}
WHERE = {"dataset": "--data DATASET", "registry": "--param registry=gs://BUCKET/PATH"}


@dataclasses.dataclass(frozen=True)
class Submission:
    """What a cluster is sent.

    Attributes:
        text: the compiled pipeline.
        package: the same, read.
        parameters: runtime parameters that differ from their defaults.
        pipeline_root: "" for the cluster's own.
        dataset: the local dataset that is to be copied to `parameters["dataset"]`, or None.
    """

    text: str
    package: Package
    parameters: dict[str, Any]
    pipeline_root: str
    dataset: Path | None = None

    def request(
        self,
        name: str,
        config: PipelineConfig,
        experiment: str,
        labels: Mapping[str, str],
        *,
        cache: bool,
    ) -> RunRequest:
        """The run as a backend takes it."""
        return RunRequest(
            name=name,
            parameters=self.parameters,
            pipeline_root=self.pipeline_root,
            experiment=experiment,
            labels=labels,
            cache=cache,
            service_account=config.cluster.service_account,
        )

    def place_dataset(self) -> bool:
        """Copies the dataset to where the parameter says, unless it lies there.

        Returns:
            Whether it was copied.
        """
        return self.dataset is not None and datasets.place(self.dataset, self.parameters[DATASET])


def prepare(
    config: PipelineConfig,
    target: Target,
    *,
    data: str | Path | None = None,
    assignments: Sequence[str] = (),
    root: str = "",
    file: Path | None = None,
) -> Submission:
    """Compiles, and settles parameters and root. Touches no network and copies nothing.

    Args:
        config: the settings.
        target: what the pipeline is compiled for.
        data: an imported dataset, a folder here or an address where it lies already.
        assignments: `name=value` of runtime parameters.
        root: pipeline root; "": that of the config, then the compiled file's.
        file: a compiled pipeline, in place of compiling.

    Raises:
        BackendError: a parameter is unknown or missing, or a dataset has no place to go to.
    """
    local = None if data is None or is_remote(data) else Path(data)
    text = compile_text(config, target, local) if file is None else _read(file)
    package = packages.read(text)
    root = root or config.cluster.pipeline_root or package.spec.get("defaultPipelineRoot", "")
    parameters = packages.given_parameters(package, assignments)
    if data is not None:
        if DATASET in parameters:
            raise BackendError("--data and --param dataset=… say the same. Give one of them.")
        if DATASET not in package.parameters:
            raise BackendError(f"The pipeline {package.name} takes no dataset. Leave out --data.")
        parameters[DATASET] = str(data) if local is None else _address(local, root)
    for name, folder in KEPT.items():
        declared = package.parameters.get(name)
        if root and declared is not None and not declared.get("defaultValue"):
            parameters.setdefault(name, f"{root.rstrip('/')}/{folder}")
    missing = packages.missing(package, parameters)
    if missing:
        hints = [WHERE.get(name, f"--param {name}=VALUE") for name in missing]
        raise BackendError(
            f"The pipeline {package.name} needs {', '.join(missing)}. Give {' and '.join(hints)}."
        )
    return Submission(text, package, parameters, root, local)


def compile_text(config: PipelineConfig, target: Target, dataset: Path | None) -> str:
    """The compiled pipeline for a dataset of this kind, as text."""
    from pipeline.compiling import compile_pipeline
    from pipeline.facts import Facts, read_facts

    latest = config.data.spans == "latest"
    facts = Facts() if dataset is None else read_facts(dataset, latest=latest)
    return compile_pipeline(config, target, facts).yaml


def _address(dataset: Path, root: str) -> str:
    if not root:
        raise BackendError(
            f"The dataset {dataset} is copied below the pipeline root, and none is given. Give "
            "--pipeline-root URI, or --param dataset=URI where it lies already."
        )
    return datasets.address(dataset, dataset.name, root)


def _read(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BackendError(
            f"The compiled pipeline {file} cannot be read: {error}. Write one: cortexflow compile."
        ) from None
