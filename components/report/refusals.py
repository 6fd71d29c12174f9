"""Which images get no answer: the student's input gate, for the report and for the model card.

All numbers are the gate's own, measured when it was fitted; nothing is computed here.
"""

import dataclasses
from collections.abc import Iterator

from components.report.document import Block, Text, bullets, table
from components.report.evidence import Evidence
from components.report.forests import Entry, Forest, forest
from components.report.gate_evidence import InputGate, WrongImages
from components.report.judgement import Interval
from components.report.words import share
from trainer.input_gate import TURNS

WORDS = {
    "natural": "1/f scene",
    "gain_0.4": "darkened",
    "half": "stretched half",
    "zoomed": "zoomed in",
    "text": "text burnt in",
    "bar": "bar burnt in",
    "tilted_15": "tilted by 15°",
    "rotated_90": "turned by 90°",
    "rotated_180": "turned by 180°",
    "rotated_270": "turned by 270°",
    "upside_down": "upside-down",
    "transposed": "mirrored along one diagonal",
    "antitransposed": "mirrored along the other diagonal",
}
UNGATED = "No input gate is known of this model: a server answers for whatever it can decode."
LIMITS = (
    "It knows where images come from as much as what they show: those of another scanner, atlas or "
    "way of cutting off the skull are refused too, for nobody measured the model there.",
    "It sees no disease, no wrong person and no attack made to look right; and of wrong images it "
    "was tried on made-up kinds alone.",
)


@dataclasses.dataclass(frozen=True)
class RefusalPanel:
    """The input gate as the page shows it.

    Attributes:
        plot: shares refused: of images as they were, and of kinds that pass now and then;
            None where nothing was measured.
        always: the kinds that never passed, in words.
        target: share of images as they were that may be refused, in words.
        said: what it was fitted on, what it refuses, what it can tell.
        rows: (kind in words, its numbers), those that pass most first.
        caption: what these numbers are.
    """

    plot: Forest | None
    always: str
    target: str
    said: tuple[str, ...]
    rows: tuple[tuple[str, WrongImages], ...]
    caption: str
    limits: tuple[str, ...] = LIMITS


def panel(evidence: Evidence) -> RefusalPanel | None:
    """Lays out the input gate for the report; None where the model has none."""
    gate = evidence.input_gate
    if gate is None:
        return None
    rows = _rows(gate)
    always = [name for name, of in rows if of.caught == 1]
    return RefusalPanel(
        _plot(gate, rows, len(always)),
        ", ".join(always),
        share(gate.target),
        tuple(_said(gate, _leaked(evidence))),
        rows,
        _caption(gate),
    )


def ungated(evidence: Evidence) -> str:
    """Why there is no input gate to be shown, in a sentence."""
    return UNGATED if "student" in evidence.histories else "No model was exported."


def blocks(evidence: Evidence) -> Iterator[Block]:
    """The section of the model card."""
    gate = evidence.input_gate
    if gate is None:
        yield Text(ungated(evidence))
        return
    yield Text(
        "A server gives no class to an image unlike those of training; it gives the reason instead."
    )
    yield bullets([*_said(gate, _leaked(evidence)), *LIMITS])
    if gate.families:
        yield table(
            ("Kind of image", "Refused", "AUROC", "FPR95"),
            [
                (name, share(of.caught), f"{of.auroc:.3f}", share(of.fpr95))
                for name, of in _rows(gate)
            ],
            _caption(gate),
        )


def _plot(gate: InputGate, rows: tuple[tuple[str, WrongImages], ...], always: int) -> Forest | None:
    if gate.false_rejection is None:
        return None
    right = Entry(
        "As they were",
        Interval(gate.false_rejection),
        "other",
        note="should pass",
    )
    passing = [
        Entry(
            name.capitalize(),
            Interval(of.caught),
            "class",
            note=f"AUROC {of.auroc:.3f}, FPR95 {share(of.fpr95)}",
        )
        for name, of in rows
        if of.caught < 1
    ]
    kinds = "other kind" if passing else "kind"
    rest = Entry(f"{always} {kinds}{'s' if always != 1 else ''}", Interval(1.0), "class")
    return forest([right, *passing, *([rest] if always else [])], gate.target, (0.0, 1.0))


def _rows(gate: InputGate) -> tuple[tuple[str, WrongImages], ...]:
    ordered = sorted(gate.families, key=lambda of: (of.caught, of.auroc))
    return tuple((_word(of.family), of) for of in ordered)


def _caption(gate: InputGate) -> str:
    images = max((of.images for of in gate.families), default=0)
    return (
        f"{images:,} validation images, spoilt on purpose. AUROC: chance that a spoilt one scores "
        "above one as it was. FPR95: share that would pass a limit which 95% of those as they were "
        "pass; lower is better."
    )


def _leaked(evidence: Evidence) -> bool:
    return evidence.dataset is not None and evidence.dataset.leaked


def _said(gate: InputGate, leaked: bool) -> Iterator[str]:
    yield (
        f"Fitted on {gate.images:,} images of {gate.people:,} training people, to refuse "
        f"{share(gate.target)} of unseen people's images; cross-fitting over training people "
        f"found {share(gate.cross_fitted)}."
    )
    if gate.false_rejection is not None:
        refused = round(gate.false_rejection * gate.validation_images)
        whose = "some of people it was fitted on" if leaked else "of people it was not fitted on"
        yield (
            f"Refused without need: {refused:,} of {gate.validation_images:,} validation images "
            f"({share(gate.false_rejection)}), {whose}."
        )
    told = [
        _word(turn) + (f" ({share(caught)} caught)" if caught < 1 else "")
        for turn, caught in gate.turns.items()
    ]
    yield f"Tells from upright: {', '.join(told) or 'no way of turning or mirroring'}."
    if untold := [_word(turn) for turn in TURNS if turn not in gate.turns]:
        yield f"Cannot tell, for training images look the same then: {', '.join(untold)}."


def _word(name: str) -> str:
    return WORDS.get(name) or name.replace("_", " ")
