"""RunView: what Kubeflow's UI shows of a run, as one plain container.

    python -m components.run_view --executor_input '{{$}}'

It is no TFX node, for TFX has none of the types that the UI shows by itself: numbers, ROC curves
and a confusion matrix as metadata, pages and a model card as files. It reads an ExecutorInput of
Kubeflow Pipelines, builds the evidence of the run from the artifacts that it names, and leaves what
its outputs ask for, with an ExecutorOutput beside. It runs before the nodes that stop a refused
run, on whatever is there.
"""

import argparse
import dataclasses
import importlib.metadata
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from components.decisions import read_decision
from components.report import card, collecting, datasets, html, scores, views
from components.report.collecting import Found
from components.report.evidence import UNDER_WAY, Dataset, Evidence, Node, Run
from components.report.scores import Scores
from components.run_view_metrics import confusion, roc, scalars
from components.run_view_outputs import (
    CARD,
    CHECKS,
    CONFUSION,
    INPUTS,
    METRICS,
    REPORT,
    STATISTICS,
    roc_names,
)
from evaluation.outcome import Decision
from schema import places
from schema.errors import CortexflowError
from trainer.knobs import turned

# Where Kubeflow's launcher keeps copies of what lies in a bucket, and takes outputs up from; Vertex
# AI mounts the first. What is not there is read and written through TensorFlow's filesystems.
MOUNTS = {"gs://": "/gcs/", "minio://": "/minio/", "s3://": "/s3/"}
PACKAGES = ("cortexflow", "tensorflow", "tfx", "numpy")
UNFILLED = "{{$"  # a placeholder that this version of the backend does not know


class BadInput(CortexflowError):
    """What the launcher handed over is no ExecutorInput of RunView."""


@dataclasses.dataclass(frozen=True)
class Request:
    """An ExecutorInput of Kubeflow Pipelines, as far as it is used here.

    Attributes:
        artifacts: by the input names of `run_view_outputs.INPUTS`.
        parameters: name → value.
        outputs: output name → its artifact, a dict with `name` and `uri`.
        output_file: path for the ExecutorOutput.
    """

    artifacts: Mapping[str, Found]
    parameters: Mapping[str, Any]
    outputs: Mapping[str, Mapping[str, Any]]
    output_file: str


def read_request(text: str) -> Request:
    """Reads an ExecutorInput.

    Raises:
        BadInput: it is not JSON, or names no output file.
    """
    try:
        document = json.loads(text)
        inputs, outputs = document.get("inputs", {}), document["outputs"]
        return Request(
            {
                name: Found(near(listed["artifacts"][0]["uri"]))
                for name, listed in inputs.get("artifacts", {}).items()
                if name in INPUTS and listed.get("artifacts")
            },
            inputs.get("parameterValues", {}),
            {
                name: listed["artifacts"][0]
                for name, listed in outputs.get("artifacts", {}).items()
                if listed.get("artifacts")
            },
            outputs["outputFile"],
        )
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadInput(
            f"--executor_input is no ExecutorInput: {error!r} (received {text[:200]!r}). The "
            "launcher puts it there for the argument {{$}}."
        ) from error


def near(uri: str) -> str:
    """The local copy or mount of an address, where there is one; else the address itself."""
    path = _mounted(uri)
    return str(path) if path is not None and path.exists() else uri


def gather(request: Request) -> Evidence:
    """The evidence of the run so far.

    Raises:
        BadInput: the settings or the facts are not JSON.
    """
    asked = {key: str(request.parameters.get(key) or "") for key in ("pipeline", "run_id", "image")}
    try:
        config = json.loads(request.parameters.get("config") or "{}")
        facts = json.loads(request.parameters.get("facts") or "{}")
    except ValueError as error:
        raise BadInput(f"The parameters config and facts are JSON (received {error}).") from error
    config = as_started(config, request.parameters)
    found = {INPUTS[name]: artifact for name, artifact in request.artifacts.items()}
    versions = {name: importlib.metadata.version(name) for name in PACKAGES}
    run = Run(
        id="" if asked["run_id"].startswith(UNFILLED) else asked["run_id"],
        pipeline=asked["pipeline"],
        status=UNDER_WAY,
        versions=versions | ({"container image": asked["image"]} if asked["image"] else {}),
    )
    dataset, lineage = _dataset(str(request.parameters.get("dataset") or ""), found, config, facts)
    evidence = collecting.collected(found, run=run, config=config, dataset=dataset)
    nodes = tuple(dict.fromkeys(node for node, _ in found))
    return dataclasses.replace(
        evidence, nodes=tuple(Node(node, "ran") for node in nodes), lineage=lineage
    )


def as_started(config: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a run: those that the pipeline was compiled with, and its parameters.

    Args:
        config: the settings as a document.
        parameters: `model_name`, and knobs as `STAGE_KNOB`; others are ignored.
    """
    found = dict(config)
    if parameters.get("model_name"):
        found["model_name"] = parameters["model_name"]
    for stage in collecting.STAGES:
        if found.get(stage) is None:
            continue
        knobs = {
            name.removeprefix(f"{stage}_"): value
            for name, value in parameters.items()
            if name.startswith(f"{stage}_")
        }
        found[stage] = json.loads(turned(json.dumps(found[stage]), knobs))
    return found


def _dataset(
    address: str,
    found: collecting.Artifacts,
    config: Mapping[str, Any],
    facts: Mapping[str, Any],
) -> tuple[Dataset | None, dict[str, str]]:
    """The dataset and the run's lineage; counted from the predictions where it is out of reach."""
    weights = collecting.weights_digest(found)
    if address:
        try:
            with datasets.documents(near(address)) as imported:
                told = datasets.lineage(config, imported, weights)
                return datasets.described(imported), told
        except (CortexflowError, OSError) as error:
            print(f"RunView: no dataset to be read at {address}: {error}")
    told = datasets.lineage(config, None, weights)
    if not facts.get("classes"):
        return None, told
    name = address.rstrip("/").rpartition("/")[-1] or "unnamed"
    return datasets.counted(collecting.tables(found), facts, name), told


def writers(
    evidence: Evidence, contract: Decision | None
) -> tuple[dict[str, Callable[[], dict]], dict[str, Callable[[], str]]]:
    """What can be written of a run: output name → metadata, and output name → text of a file."""
    level = _headline(evidence)
    metadata: dict[str, Callable[[], dict]] = {
        METRICS: lambda: scalars(evidence, level),
        CONFUSION: lambda: confusion(level) if level else {},
    }
    classes = evidence.dataset.classes if evidence.dataset else ()
    for label, name in enumerate(roc_names(classes).values()):
        metadata[name] = lambda label=label: roc(level, label) if level else {}  # type: ignore[misc]
    return metadata, {
        REPORT: lambda: html.render(evidence, contents=False),
        STATISTICS: lambda: views.statistics(evidence),
        CHECKS: lambda: views.checks(evidence, contract),
        CARD: lambda: card.markdown(evidence),
    }


def _headline(evidence: Evidence) -> Scores | None:
    """Scores per person, or per slice where nobody is known; None where nothing can be measured."""
    try:
        return next(iter(scores.levels(evidence)), None)
    except ValueError as error:
        print(f"RunView: the student's answers cannot be measured: {error}")
        return None


def show(request: Request) -> dict[str, Any]:
    """Writes every output that is asked for; returns the ExecutorOutput.

    Raises:
        BadInput: an output is asked for that RunView does not know.
    """
    evidence = gather(request)
    found = request.artifacts.get("anomaly_decision")
    metadata, files = writers(evidence, read_decision(found.uri) if found else None)
    unknown = sorted(set(request.outputs) - set(metadata) - set(files))
    if unknown:
        raise BadInput(
            f"RunView has no output {', '.join(unknown)} (it has {', '.join([*metadata, *files])})."
            " Compile the pipeline with the code of this image."
        )
    told = {}
    for name, artifact in request.outputs.items():
        values = metadata[name]() if name in metadata else {}
        if name in files:
            write(artifact["uri"], files[name]())
        described = f"{len(values)} values" if name in metadata else artifact["uri"]
        print(f"RunView: {name}: {described}")
        told[name] = {"artifacts": [{**_kept(artifact), "metadata": values}]}
    return {"artifacts": told}


def _kept(artifact: Mapping[str, Any]) -> dict[str, Any]:
    return {key: artifact[key] for key in ("name", "uri") if key in artifact}


def write(uri: str, text: str) -> None:
    """Writes a file at a path or address, whole or not at all."""
    path = _mounted(uri)
    if path is not None and not _bucket(uri).is_dir():
        path = None
    if path is None and places.is_remote(uri):
        places.write_bytes(uri, text.encode())
        return
    path = path or Path(uri)
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_dir():
        path.rmdir()  # of launchers that make a folder for each output; empty, or this is an error
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    beside.write_text(text)
    beside.replace(path)


def _mounted(uri: str) -> Path | None:
    for scheme, folder in MOUNTS.items():
        if uri.startswith(scheme):
            return Path(folder + uri.removeprefix(scheme))
    return None


def _bucket(uri: str) -> Path:
    scheme = next(scheme for scheme in MOUNTS if uri.startswith(scheme))
    return Path(MOUNTS[scheme] + uri.removeprefix(scheme).partition("/")[0])


def main(arguments: Sequence[str] | None = None) -> None:
    """The container's entry point."""
    parser = argparse.ArgumentParser(description="Writes what Kubeflow's UI shows of a run.")
    parser.add_argument("--executor_input", required=True, help="JSON, put there for {{$}}")
    asked = parser.parse_args(arguments)
    request = read_request(asked.executor_input)
    output = show(request)
    write(request.output_file, json.dumps(output, allow_nan=False))


if __name__ == "__main__":
    main()
