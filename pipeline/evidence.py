"""Collects what a local run left behind into the evidence that its report shows."""

import dataclasses
import importlib.metadata
from pathlib import Path

from components.report import collecting, datasets
from components.report import evidence as report
from components.report.collecting import Found
from ingest.datasets import read_dataset
from pipeline import lineage, metadata, versions
from pipeline.config import PipelineConfig
from pipeline.documents import override_of, put_live
from pipeline.runs import RunRecord
from pipeline.workspace import Workspace

PACKAGES = (
    "cortexflow", "tensorflow", "tfx", "tensorflow-model-analysis", "apache-beam", "numpy",
)  # fmt: skip


def collect(
    config: PipelineConfig, workspace: Workspace, record: RunRecord, dataset: Path | None
) -> report.Evidence:
    """Reads artifacts of every node that ended, through ML Metadata.

    Args:
        config: the run's settings.
        workspace: where the run kept its things.
        record: the run's record; its nodes may be any beginning of the DAG.
        dataset: the imported dataset, or None when the run stopped before it.

    Returns:
        Evidence with whatever there is.
    """
    nodes = lineage.outputs_of_nodes(metadata.database(config, workspace), record.nodes)
    artifacts = {
        (node, artifact.key): Found(artifact.uri, artifact.properties)
        for node, found in nodes.items()
        for artifact in reversed(found)  # the first of a key is the one that counts
    }
    live = versions.registry(config, workspace).live()
    imported = read_dataset(dataset) if dataset else None
    settings = config.model_dump(mode="json")
    found = collecting.collected(
        artifacts,
        run=_run(record),
        config=settings,
        dataset=datasets.described(imported) if imported else None,
        live=live.number if live else None,
    )
    return dataclasses.replace(
        found,
        nodes=tuple(_node(state) for state in record.nodes),
        pushed=put_live(record, live) or found.pushed,
        override=override_of(record),
        lineage=datasets.lineage(settings, imported, collecting.weights_digest(artifacts)),
    )


def _run(record: RunRecord) -> report.Run:
    return report.Run(
        id=record.id,
        preset=record.preset,
        pipeline=record.pipeline,
        started=record.started.isoformat(timespec="seconds"),
        seconds=record.seconds,
        status=record.status,
        message=record.reason,
        versions={name: importlib.metadata.version(name) for name in PACKAGES},
        command=record.command,
    )


def _node(state) -> report.Node:
    ended = "failed" if state.state == "running" else state.state
    return report.Node(id=state.node, state=ended, seconds=state.seconds)
