"""AnomalyGate: refuses data that ExampleValidator found outside its contract.

ExampleValidator only records anomalies; nothing downstream looks at them (TFX never fails a run on
data). This node makes a decision of them, by which `StopOnBadData` ends the run.
"""

from collections.abc import Mapping

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import ExampleAnomalies

from components.artifacts import DataDecision
from components.decisions import write_decision
from evaluation.outcome import Check, Decision, Outcome, concluded


def decide(anomalies: Mapping[str, Mapping[str, str]]) -> Decision:
    """Passes data without anomalies, refuses all other.

    Args:
        anomalies: split name → feature name → what is wrong with it.

    Returns:
        The decision, with one reason per anomaly.
    """
    broken = [
        Check(f"{split}: {feature}", Outcome.REFUSED, detail=f"{split}: {feature}: {description}")
        for split, found in sorted(anomalies.items())
        for feature, description in sorted(found.items())
    ]
    return concluded(broken or [Check("the data keep their contract", Outcome.PASSED)])


def read_anomalies(artifact: ExampleAnomalies) -> dict[str, dict[str, str]]:
    """Reads what ExampleValidator wrote: split → feature → description."""
    from tensorflow_metadata.proto.v0 import anomalies_pb2
    from tfx.dsl.io import fileio

    found = {}
    for split in artifact_utils.decode_split_names(artifact.split_names):
        proto = anomalies_pb2.Anomalies()
        with fileio.open(f"{artifact.uri}/Split-{split}/SchemaDiff.pb", "rb") as file:
            proto.ParseFromString(file.read())
        found[split] = {name: info.description for name, info in proto.anomaly_info.items()}
        if proto.HasField("dataset_anomaly_info"):
            found[split]["(dataset)"] = proto.dataset_anomaly_info.description
    return found


@component
def AnomalyGate(  # noqa: N802 (a TFX node is named as a class)
    anomalies: InputArtifact[ExampleAnomalies],
    decision: OutputArtifact[DataDecision],
    code: Parameter[str],
):
    """TFX node: publishes the decision.

    `code` is the hash of this code, in every gate: an edited gate must decide again.
    """
    write_decision(decide(read_anomalies(anomalies)), decision.uri)
