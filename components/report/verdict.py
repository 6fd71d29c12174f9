"""The answer of the run in words: verdict, stamps, and the gate's checks."""

import dataclasses
from collections.abc import Sequence

from components.report.evidence import Evidence, Override
from components.report.judgement import Interval, Judgement, finite
from components.report.words import interval, moment, sentence
from evaluation.outcome import Check, Outcome

MAX_REASONS = 8
ANSWERS = {
    Outcome.PASSED: ("ok", "✓ passed"),
    Outcome.REFUSED: ("no", "✕ refused"),
    Outcome.INSUFFICIENT: ("unsure", "? insufficient evidence"),
}


@dataclasses.dataclass(frozen=True)
class Verdict:
    """The decision in words; `kind` sets its colour."""

    kind: str
    icon: str
    title: str
    lead: str
    reasons: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Stamp:
    """A warning in huge letters."""

    kind: str
    word: str
    text: str


@dataclasses.dataclass(frozen=True)
class CheckRow:
    """One check of a gate; `lasting`: no override lifts it."""

    name: str
    kind: str
    answer: str
    of: Interval
    bound: float | None
    detail: str
    lasting: bool


def verdict(evidence: Evidence) -> Verdict:
    """What became of the run, and why."""
    decision, stopped = evidence.decision, stopped_at(evidence)
    if decision is None:
        reasons = _of_the_data(evidence)
        message = (evidence.run.message,) if evidence.run.message else ()
        if stopped is None and not reasons:
            lead = "This run holds no decision of a gate."
            return Verdict("unknown", "…", "No decision", lead, message)
        where = f"The run stopped at {stopped}." if stopped else "The run stopped."
        lead = f"{where} No model was judged."
        return Verdict("stopped", "■", "Stopped", lead, few(reasons) or message)
    words = {
        Outcome.PASSED: ("passed", "✓", "Passed", "This student met every check of the gate."),
        Outcome.REFUSED: ("refused", "✕", "Refused", "This student does not go live."),
        Outcome.INSUFFICIENT: (
            "insufficient",
            "?",
            "Insufficient evidence",
            "There is too little data to tell, so nothing goes live.",
        ),
    }
    kind, icon, title, lead = words[decision.outcome]
    if evidence.override is not None:
        lead = f"The gate did not let this student through; {evidence.override.who} did."
    elif decision.outcome is Outcome.REFUSED and evidence.predictions is None:
        lead = f"The run stopped at {stopped or 'a gate'}, before any model was judged."
    return Verdict(kind, icon, title, lead, few(decision.reasons))


def caveats(evidence: Evidence, judged: Judgement) -> tuple[str, ...]:
    """What a reader of the verdict should know with it."""
    found = []
    csf = judged.differences.get("student - total CSF")
    if csf is not None and csf.known and csf.low <= 0 <= csf.high:
        found.append(
            "Not shown to be better than total CSF, one number measured by hand-made rules: "
            f"difference in macro AUC {interval(csf)}."
        )
    found += [sentence(note) for note in judged.notes]
    return tuple(found) if evidence.predictions is not None else ()


def _of_the_data(evidence: Evidence) -> tuple[str, ...]:
    """What the gates on the data said against them."""
    found = [f"{anomaly.feature}: {anomaly.description}" for anomaly in evidence.anomalies]
    for gate in (evidence.leakage, evidence.drift):
        if gate is not None and gate.decision.outcome is Outcome.REFUSED:
            found += gate.decision.reasons
    return tuple(found)


def few(reasons: Sequence[str]) -> tuple[str, ...]:
    """The first reasons, and how many more there are."""
    more = len(reasons) - MAX_REASONS
    return (*reasons[:MAX_REASONS], *([f"… and {more} more"] if more > 0 else []))


def stamps(evidence: Evidence) -> tuple[Stamp, ...]:
    """What a reader must not miss."""
    dataset, found = evidence.dataset, []
    if dataset is not None and dataset.leaked:
        text = (
            "The same people stand in training and in test. These numbers say how well the model "
            "recognises people, not how well it will do on someone new. It can never go live."
        )
        found.append(Stamp("leaked", "LEAKED", text))
    if dataset is not None and dataset.level == "slice":
        text = (
            "There are no subject ids, so slices of one person may stand on both sides of the "
            "split, and all numbers are per slice. Read them as an upper bound."
        )
        found.append(Stamp("slice", "SLICE-LEVEL", text))
    if evidence.override is not None:
        found.append(Stamp("overridden", "OVERRIDDEN", overridden(evidence.override)))
    return tuple(found)


def overridden(override: Override) -> str:
    """Who let a model through, when and why."""
    when = f" on {moment(override.when)}" if override.when else ""
    return f"The gate did not let this model through. {override.who} did{when}: “{override.reason}”"


def checks(evidence: Evidence, judged: Judgement) -> tuple[CheckRow, ...]:
    """ModelGate's checks, in the order in which it asked."""
    asked = evidence.decision.checks if evidence.decision else ()
    return tuple(
        CheckRow(
            check.name,
            *ANSWERS[check.outcome],
            Interval(check.value, finite(check.low), finite(check.high)),
            check.bound,
            told(check),
            check.name in judged.final,
        )
        for check in asked
    )


def told(check: Check) -> str:
    """A check's answer in words, where they say more than its number and interval."""
    return "" if check.passed and check.low is not None else check.detail


def margins(evidence: Evidence) -> dict[str, float]:
    """What the gate's settings ask of paired differences: the other model → least difference."""
    gate = evidence.config.get("gate", {})
    asked = {
        name: -gate[f"{name}_margin"] for name in ("live", "teacher") if f"{name}_margin" in gate
    }
    if gate.get("total_csf") == "beat":
        asked["total CSF"] = 0.0
    elif gate.get("total_csf") == "match":
        asked["total CSF"] = -gate["total_csf_margin"]
    return asked


def stopped_at(evidence: Evidence) -> str | None:
    """The node at which the run ended early."""
    return next((node.id for node in evidence.nodes if node.state == "failed"), None)
