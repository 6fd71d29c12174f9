"""Runs that ended, made by hand: the records of ML Metadata without the nodes that write them."""

from pathlib import Path

from ml_metadata import metadata_store
from ml_metadata.proto import metadata_store_pb2


def recorded(database: Path, outputs: dict[str, tuple[Path, str]]) -> int:
    """Writes one execution into the MLMD file.

    Args:
        database: made where it is absent; its folder exists.
        outputs: output key → (folder of the artifact, name of its type).

    Returns:
        The execution's id.
    """
    settings = metadata_store_pb2.ConnectionConfig()
    settings.sqlite.filename_uri = str(database)
    store = metadata_store.MetadataStore(settings)
    kind = store.put_execution_type(metadata_store_pb2.ExecutionType(name="node"))
    [execution] = store.put_executions([metadata_store_pb2.Execution(type_id=kind)])
    for key, (folder, type_name) in outputs.items():
        artifact_type = metadata_store_pb2.ArtifactType(name=type_name)
        artifact = metadata_store_pb2.Artifact(
            type_id=store.put_artifact_type(artifact_type), uri=str(folder)
        )
        [number] = store.put_artifacts([artifact])
        event = metadata_store_pb2.Event(
            artifact_id=number, execution_id=execution, type=metadata_store_pb2.Event.OUTPUT
        )
        event.path.steps.add().key = key
        event.path.steps.add().index = 0
        store.put_events([event])
    return execution
