"""The few questions asked of ML Metadata, behind one narrow door (KFP is moving it out)."""

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2

from pipeline import metadata
from pipeline.metadata import Database, SqliteFile
from pipeline.runs import NodeState


@dataclasses.dataclass(frozen=True)
class ArtifactRef:
    """One artifact of a node: its id, output key, type, place and custom properties."""

    id: int
    key: str
    type: str
    uri: str
    properties: dict[str, str | int | float]


@contextmanager
def opened(
    place: Database | Path, *, write: bool = False
) -> Iterator[metadata_store.MetadataStore]:
    """A view of existing metadata; of a file read-only, unless asked otherwise.

    Args:
        place: as `pipeline.metadata.database` gives it, or the path of a SQLite file.
        write: whether anything will be changed.

    Raises:
        MetadataError: a server cannot be reached, or went away.
    """
    database = SqliteFile(place) if isinstance(place, Path) else place
    with metadata.told(database):
        yield metadata.store(database, write=write)


def annotate(place: Database | Path, artifact: int, properties: dict[str, str]) -> None:
    """Adds custom properties to an artifact."""
    with opened(place, write=True) as store:
        [found] = store.get_artifacts_by_id([artifact])
        for name, text in properties.items():
            found.custom_properties[name].string_value = text
        store.put_artifacts([found])


def outputs(store: metadata_store.MetadataStore, execution_id: int) -> list[ArtifactRef]:
    """What an execution put out (a cached one: what it was answered with), by output key."""
    events = [
        event
        for event in store.get_events_by_execution_ids([execution_id])
        if event.type == metadata_store_pb2.Event.OUTPUT
    ]
    artifacts = {
        artifact.id: artifact
        for artifact in store.get_artifacts_by_id([event.artifact_id for event in events])
    }
    return [
        ArtifactRef(
            id=event.artifact_id,
            key=event.path.steps[0].key,
            type=artifacts[event.artifact_id].type,
            uri=artifacts[event.artifact_id].uri,
            properties={
                name: getattr(value, value.WhichOneof("value"))
                for name, value in artifacts[event.artifact_id].custom_properties.items()
                if value.WhichOneof("value") in ("int_value", "string_value", "double_value")
            },
        )
        for event in events
    ]


def outputs_of_nodes(
    place: Database | Path, nodes: Iterable[NodeState]
) -> dict[str, list[ArtifactRef]]:
    """What each node of a run that ended well put out; nothing before the first node ran."""
    database = SqliteFile(place) if isinstance(place, Path) else place
    if not database.exists():
        return {}
    with opened(database) as store:
        return {
            node.node: outputs(store, node.execution_id)
            for node in nodes
            if node.execution_id is not None and node.state in ("ran", "cached")
        }
