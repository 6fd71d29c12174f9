"""ServingCheck: may a server load this model? Asked in a process of its own, with limits.

The questions are those of `serving.probe`: no file and no operation that our own exports do not
have, and the answers that the model gave at export. The node publishes its decision; ModelGate
counts it, and nobody's word lifts it: a person may answer for a weak model, not for one that cannot
be loaded or that reads files (docs/adr/0007).
"""

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.types.standard_artifacts import Model
from tfx.utils import path_utils

from components.artifacts import ServingDecision
from components.decisions import write_decision
from evaluation.outcome import Check, Decision, Outcome, concluded
from schema import places
from serving import probe
from serving.config import ProbeSettings


def decided(report: probe.ProbeReport) -> Decision:
    """A trial's report as a decision: passed or refused, never in doubt.

    Returns:
        The decision; its details: `content`, the digest of the files that were tried out
        (`registry.manifest.content_digest`); `isolated`, whether no network could be reached;
        `seconds`; `memory_bytes` at the most.
    """
    checks = [
        Check(
            each.name,
            Outcome.PASSED if each.passed else Outcome.REFUSED,
            detail=each.detail if each.passed else f"{each.name}: {each.detail}",
        )
        for each in report.findings
    ]
    details = {
        "content": report.digest,
        "isolated": report.isolated,
        "seconds": report.seconds,
        "memory_bytes": report.memory_bytes,
    }
    return concluded(checks, details=details)


@component
def ServingCheck(  # noqa: N802 (a TFX node is named as a class)
    model: InputArtifact[Model],
    decision: OutputArtifact[ServingDecision],
    settings: Parameter[str],
    code: Parameter[str],
):
    """TFX node. `settings` is a ProbeSettings as JSON; `code` the hash of this code, for the cache.

    The decision is made for the model alone; that it passed says nothing of its answers' worth.
    """
    limits = ProbeSettings.model_validate_json(settings)
    folder = path_utils.serving_model_path(model.uri, path_utils.is_old_model_artifact(model))
    with places.fetched(folder) as place:
        report = probe.probe(
            str(place), timeout=limits.timeout_seconds, memory_bytes=limits.memory_bytes
        )
    write_decision(decided(report), decision.uri)
