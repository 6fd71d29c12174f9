"""Parts of the report as pages of their own, for places that show one artifact at a time.

Like the report they need no script, no other file and no network. They hold no links to their own
sections, which would lead astray in a frame of another page.
"""

from collections.abc import Sequence

from components.report import panels, safeguards, tables, verdict
from components.report.evidence import Evidence
from components.report.html import environment, facts
from components.report.verdict import Verdict
from evaluation.outcome import Decision, Outcome
from schema.features import SPLITS


def statistics(evidence: Evidence) -> str:
    """Counts per split and class, and how the image descriptors of each split are distributed.

    Returns:
        A complete HTML document.
    """
    dataset = evidence.dataset
    reference, *others = tables.split_order(evidence.statistics) or [""]
    compared: list[str | None] = [split for split in reversed(others) if split in SPLITS]
    pairs = [panels.descriptors(evidence, split) for split in compared or [None] if reference]
    return _page(
        "view_statistics.html",
        evidence,
        "Statistics",
        dataset=dataset,
        counts=tables.counts(dataset) if dataset else None,
        pairs=pairs,
    )


def checks(evidence: Evidence, contract: Decision | None = None) -> str:
    """What the gates on data found: anomalies, leaks with their picture, drift.

    Args:
        evidence: of the run.
        contract: AnomalyGate's decision.

    Returns:
        A complete HTML document.
    """
    dataset = evidence.dataset
    asked = (
        ("Do the data keep their contract?", contract),
        ("Does nobody stand on both sides?", evidence.leakage and evidence.leakage.decision),
        ("Are they like the data of before?", evidence.drift and evidence.drift.decision),
    )
    return _page(
        "view_checks.html",
        evidence,
        "Checks of the data",
        asked=asked,
        unfolded=True,
        answer=_answer(
            [decision for _, decision in asked if decision],
            leaked=dataset is not None and dataset.leaked,
        ),
        anomalies=evidence.anomalies,
        validated=contract is not None,
        leakage=safeguards.leakage(evidence),
        drift=evidence.drift,
        comparisons=safeguards.drift(evidence),
    )


def _answer(decisions: Sequence[Decision], *, leaked: bool) -> Verdict:
    """All gates' answer in one; every reason of those that did not pass.

    Args:
        decisions: of those that answered.
        leaked: the split is known to leak and was asked for, which stops no run.
    """
    if not decisions:
        return Verdict("unknown", "…", "Not checked", "No gate has answered.")
    outcomes = {decision.outcome for decision in decisions}
    reasons = verdict.few(
        [
            reason
            for decision in decisions
            if decision.outcome is not Outcome.PASSED
            for reason in decision.reasons
        ]
    )
    if Outcome.REFUSED in outcomes:
        lead = "Nothing is trained on these data."
        if leaked:
            lead = "A leak that is known stops no run, but its model can never go live."
        return Verdict("refused", "✕", "Refused", lead, reasons)
    if Outcome.INSUFFICIENT in outcomes:
        lead = "Some gate has too little to tell; what follows weighs that."
        return Verdict("insufficient", "?", "Insufficient evidence", lead, reasons)
    return Verdict("passed", "✓", "Passed", "These data may be trained on.")


def _page(template: str, evidence: Evidence, window: str, **parts: object) -> str:
    return (
        environment()
        .get_template(template)
        .render(
            window=window,
            run=evidence.run,
            facts=facts(evidence),
            stamps=verdict.stamps(evidence),
            stopped_at=verdict.stopped_at(evidence),
            **parts,
        )
    )
