"""AnomalyGate: stops the run when ExampleValidator found the data outside its contract.

ExampleValidator only records anomalies; nothing downstream looks at them (TFX never fails a run on
data). This node does, so that no model is trained on data that broke the contract.
"""

from collections.abc import Mapping

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import ExampleAnomalies

from components.artifacts import DataDecision
from components.outcome import Decision, Outcome, Refused, write_decision


def decide(anomalies: Mapping[str, Mapping[str, str]]) -> Decision:
    """Passes data without anomalies, refuses all other.

    Args:
        anomalies: split name → feature name → what is wrong with it.

    Returns:
        The decision, with one reason per anomaly.
    """
    reasons = [
        f"{split}: {feature}: {description}"
        for split, found in sorted(anomalies.items())
        for feature, description in sorted(found.items())
    ]
    return Decision(Outcome.REFUSED if reasons else Outcome.PASSED, tuple(reasons))


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
    """TFX node: raises `Refused` on any anomaly, which ends the run.

    `code` is the hash of this code, in every gate: an edited gate must decide again.
    """
    verdict = decide(read_anomalies(anomalies))
    write_decision(verdict, decision.uri)
    if verdict.outcome is not Outcome.PASSED:
        shown = "; ".join(verdict.reasons[:3]) + ("; …" if len(verdict.reasons) > 3 else "")
        raise Refused(
            f"The data breaks its contract in {len(verdict.reasons)} place(s): {shown}. Mend the "
            "data, or change the schema on purpose (`cortexflow schema diff` shows what differs)."
        )
