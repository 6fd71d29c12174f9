"""Decisions of all gates, in the form in which they publish them."""

import io

import numpy as np
from PIL import Image

from components.report.gate_evidence import (
    Drift,
    DriftComparison,
    DriftFeature,
    InputGate,
    Leakage,
    WrongImages,
)
from evaluation.outcome import Check, Decision, Outcome, concluded


def around(value: float, width: float = 0.06) -> list[float]:
    return [value, value - width, value + width]


def model_gate(classes, subjects, outcome: Outcome, level: str, macro: dict) -> Decision:
    """ModelGate's decision; `macro`: model → its macro AUC."""
    floor = {Outcome.PASSED: 0.60, Outcome.INSUFFICIENT: 0.70, Outcome.REFUSED: 0.85}[outcome]
    enough = [name for name, people in zip(classes, subjects, strict=True) if people >= 5]
    of_classes = {f"auc/{name}": around(0.6 + 0.05 * at, 0.11) for at, name in enumerate(enough)}
    details = {
        "level": level,
        "final": ["split without known leaks", "finite probabilities"],
        "people": dict(zip(classes, subjects, strict=True)),
        "evaluable": enough,
        "not_evaluable": {
            name: people
            for name, people in zip(classes, subjects, strict=True)
            if name not in enough
        },
        "intervals": {
            "student": {"macro_auc": around(macro["student"]), **of_classes},
            "teacher": {"macro_auc": around(macro["teacher"])},
            "live": {"macro_auc": around(0.731)},
            "total CSF": {"macro_auc": around(macro["total CSF"], 0.07)},
            "constant prior": {"macro_auc": [0.5, 0.5, 0.5]},
        },
        "differences": {
            "student - constant prior": around(0.242),
            "student - total CSF": [0.040, 0.004, 0.081],
            "student - live": [0.011, -0.034, 0.052],
            "student - teacher": [-0.033, -0.048, -0.009],
        },
        "slice_intervals": {"cluster": around(0.728, 0.055), "row": around(0.728, 0.012)},
        "operating_point": {
            "positive": list(classes[:3]),
            "target_sensitivity": 0.9,
            "threshold": 0.4127,
            "validation_people": 36,
            "sensitivity": around(0.88, 0.08),
            "specificity": around(0.47, 0.15),
        },
        "subgroups": {
            "slice band": {
                "lower third": {"people": 84, "images": 252, "macro_auc": around(0.70)},
                "upper third": {"people": 84, "images": 168, "macro_auc": around(0.76)},
            },
            "site": {"site-0": {"people": 3, "images": 24, "macro_auc": None}},
        },
        "calibration": {"brier": 0.61, "expected_calibration_error": 0.07},
        "touches": 3,
        "notes": ["these test people have now judged 3 candidates"],
    }
    by_subject = Outcome.PASSED if level == "subject" else Outcome.REFUSED
    words = {
        Outcome.PASSED: "subject-level macro AUC 0.742 [0.682, 0.802]",
        Outcome.REFUSED: "subject-level macro AUC 0.742 is below the floor 0.850",
        Outcome.INSUFFICIENT: "subject-level macro AUC 0.742 may be below the floor 0.700, or not",
    }
    checks = [
        Check("evaluated by subject", by_subject, detail="" if by_subject.exit_code == 0 else "no"),
        Check("more than one class predicted", Outcome.PASSED, 4, 2),
        Check("macro AUC floor", outcome, 0.742, floor, 0.682, 0.802, words[outcome]),
        Check("beats the constant prior", Outcome.PASSED, 0.242, 5e-324, 0.182, 0.302),
    ]
    return concluded(checks, details=details)


def picture() -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(np.tile(np.arange(240, dtype=np.uint8), (120, 1))).save(buffer, "PNG")
    return buffer.getvalue()


def leakage(found: int = 0) -> Leakage:
    """LeakageCheck's answer, with so many pairs found."""

    def place(split, row):
        return {
            "split": split, "row": row, "subject": f"subj{row:03d}", "slice_index": 4, "label": 1,
            "source": "ab" * 32,
        }  # fmt: skip

    pairs = tuple(
        {
            "a": place("train", n),
            "b": place("test", n),
            "correlation": 0.999 - n / 1000,
            "layers": ["ids", "correlation"],
        }
        for n in range(found)
    )
    outcome = Outcome.REFUSED if found else Outcome.PASSED
    detail = f"{found} people stand on both sides: subj000, subj001" if found else ""
    likeness = "of 645,120 pairs of images at 64 pixels the most alike correlate at 0.943"
    decision = concluded(
        [
            Check("every image can be read", Outcome.PASSED, 0, 0),
            Check("both sides hold images", Outcome.PASSED),
            Check("no person on both sides", outcome, found, 0, detail=detail),
            Check("no image on both sides", Outcome.PASSED, 0, 0),
            Check("no look-alikes on both sides", Outcome.PASSED, 0.943, 0.98, detail=likeness),
            Check("one label per image", Outcome.PASSED, 0, 0),
        ],
        details={
            "splits": {
                "test": {"people": 84, "images": 672, "copies": 0, "nameless": 0},
                "train": {"people": 120, "images": 960, "copies": 0, "nameless": 0},
            },
            "training_side": ["train"],
            "layers": {"ids": True, "pixels": True, "correlation": True},
            "image_size": 64,
            "threshold": 0.98,
            "compared": 645_120,
            "found": {"ids": found, "pixels": 0, "correlation": 0},
            "noticed": 0.0,
            "pairs": list(pairs),
        },
    )
    return Leakage(decision, pairs, picture() if found else None)


def drift(*drifted: str) -> Drift:
    """DriftGate's answer to one comparison, with these features drifted."""
    numeric = tuple(
        DriftFeature(
            name,
            "numeric",
            0.21 if name in drifted else 0.03,
            0.09,
            0.0001 if name in drifted else 0.31,
            0.0004 if name in drifted else 1.0,
            name in drifted,
            0.21,
            0.26 if name in drifted else 0.212,
            (0.1, 0.2, 0.3),
            (0.25, 0.25, 0.25, 0.25),
            (0.05, 0.15, 0.3, 0.5) if name in drifted else (0.24, 0.26, 0.25, 0.25),
        )
        for name in ("entropy", "csf_fraction", "mean")
    )
    label = DriftFeature(
        "label", "categorical", 0.01, 0.08, 0.4, 1.0, bins=("Mild", "Non"), reference=(0.4, 0.6),
        current=(0.5, 0.5),
    )  # fmt: skip
    features = (*numeric, label)
    outcome = Outcome.REFUSED if drifted else Outcome.PASSED
    reason = f"drift in {', '.join(drifted)}" if drifted else "no drift found"
    comparison = DriftComparison(
        "train", "test", (120, 84), outcome, f"test (84 people) against train (120): {reason}", 0,
        features,
    )  # fmt: skip
    check = Check("test against train", outcome, 0.21, 0.12, detail=comparison.reason)
    kept = Check(
        "comparators of the schema, test against train", Outcome.PASSED, 0.05, 0.6,
        detail="21 kept; nearest to its threshold: descriptor/std (divergence 0.052 ≤ 0.600)",
    )  # fmt: skip
    return Drift(concluded([check, kept]), (comparison,))


def control(auc: float = 0.51) -> Decision:
    """ShuffleControl's answer; `auc`: the student's."""
    counts, edges = np.histogram(np.random.default_rng(0).normal(0.5, 0.045, 999), bins=30)
    null = {"edges": edges.tolist(), "counts": counts.tolist(), "mean": 0.5}
    found = {"student": auc, "teacher": 0.497, "neighbour": 0.53}
    names = {"student": "student", "teacher": "teacher", "neighbour": "nearest neighbour"}
    checks = [
        Check(
            f"shuffled labels, {names[name]}", Outcome.PASSED if of < 0.61 else Outcome.REFUSED,
            of, 0.61, 0.39, 0.61,
            f"macro AUC {of:.3f} of labels that mean nothing; chance gives 0.390 to 0.610",
        )
        for name, of in found.items()
    ]  # fmt: skip
    known = "training people are known again by their other slices: macro AUC 0.998"
    checks.append(Check("a leak could show", Outcome.PASSED, 0.998, 0.61, detail=known))
    banded = {
        name: {"auc": of, "low": 0.39, "high": 0.61, "null": null, "trained_auc": 0.99}
        for name, of in found.items()
    }
    student = banded.pop("student")
    return concluded(
        checks,
        details=student
        | banded
        | {
            "epochs": {"teacher": 10, "student": 10},
            "level": 0.01,
            "people": {"train": 120, "test": 84},
            "permutations": 999,
            "seconds": 32.5,
            "seed": 0,
        },
    )


def input_gate(tilted: float = 0.56) -> InputGate:
    """The input gate of a student; `tilted`: the share of tilted images that it catches."""
    caught = {"noise": 1.0, "tilted_15": tilted, "upside_down": 1.0, "mirrored": 0.0}
    return InputGate(
        people=120,
        images=960,
        target=0.005,
        cross_fitted=0.003,
        turns={"upside_down": 1.0, "rotated_90": 0.97, "transposed": 1.0},
        validation_images=288,
        false_rejection=1 / 288,
        families=tuple(
            WrongImages(name, 144, share, 0.5 + share / 2, 0.95 * (1 - share))
            for name, share in caught.items()
        ),
    )
