"""Evidence: everything a report says about one run, as plain data.

Anything may be missing: a run that stopped at its first gate still has evidence, and a report.
`storage.py` keeps it in a run's folder.
"""

import dataclasses
from typing import Any, Literal

import numpy as np

from components.report.gate_evidence import Drift, InputGate, Leakage
from components.report.strict import Strict
from evaluation.outcome import Decision
from schema.errors import CortexflowError

Level = Literal["subject", "slice"]
NodeState = Literal["ran", "cached", "failed", "skipped"]
Metrics = dict[str, Any]
UNDER_WAY = "under way"


class EvidenceError(CortexflowError):
    """Evidence is inconsistent, or a file of it cannot be read."""


@dataclasses.dataclass(frozen=True)
class Run(Strict):
    """Which run this is.

    Attributes:
        started: ISO 8601 time with offset.
        seconds: wall time of the whole run.
        status: the runner's word for how it ended, such as "finished" or "stopped"; UNDER_WAY
            where the report is one of its nodes.
        message: the last line that the run printed; where it stopped, why.
        versions: package → version.
        command: what reproduces the run.
    """

    id: str
    preset: str = ""
    pipeline: str = ""
    started: str = ""
    seconds: float | None = None
    status: str = ""
    message: str = ""
    versions: dict[str, str] = dataclasses.field(default_factory=dict)
    command: str = ""

    @property
    def under_way(self) -> bool:
        """Whether it goes on after this: what follows is not known."""
        return self.status == UNDER_WAY


@dataclasses.dataclass(frozen=True)
class Count(Strict):
    """How many images and people one class has in one split; `subjects` None: ids unknown."""

    images: int
    subjects: int | None = None


@dataclasses.dataclass(frozen=True)
class Dataset(Strict):
    """What was learnt from.

    Attributes:
        classes: names by label.
        severity: the same names from least to most severe, or None where there is no such order.
        importer: the layout that was recognised.
        id_source: what named the people ("names", "clusters", …); None where nothing did.
        leaked: people are known to stand on both sides of the split.
        counts: split → class → count; unlabelled images under a class name of their own.
        quarantined: files set aside at import; None where that is not known.
        quarantine_reasons: reason → number of files.
    """

    name: str
    classes: tuple[str, ...]
    severity: tuple[str, ...] | None = None
    level: Level = "subject"
    leaked: bool = False
    counts: dict[str, dict[str, Count]] = dataclasses.field(default_factory=dict)
    quarantined: int | None = 0
    quarantine_reasons: dict[str, int] = dataclasses.field(default_factory=dict)
    importer: str = ""
    id_source: str | None = None

    def __post_init__(self):
        if self.severity is not None and sorted(self.severity) != sorted(self.classes):
            raise EvidenceError(
                "severity must name every class once "
                f"(received severity={self.severity}, classes={self.classes})."
            )

    @property
    def order(self) -> tuple[int, ...]:
        """Labels in the order of severity, or as they are where there is none."""
        return tuple(self.classes.index(name) for name in self.severity or self.classes)


@dataclasses.dataclass(frozen=True)
class Histogram(Strict):
    """`counts[i]` values lie between `edges[i]` and `edges[i + 1]`."""

    edges: tuple[float, ...]
    counts: tuple[float, ...]

    def __post_init__(self):
        if len(self.edges) != len(self.counts) + 1:
            raise EvidenceError(
                "a histogram of n counts has n + 1 edges "
                f"(received {len(self.counts)} counts, {len(self.edges)} edges)."
            )


@dataclasses.dataclass(frozen=True)
class Descriptor(Strict):
    """Statistics of one image descriptor over one split; None where they are not defined."""

    mean: float | None
    std: float | None
    min: float | None = None
    max: float | None = None
    histogram: Histogram | None = None


@dataclasses.dataclass(frozen=True)
class Anomaly(Strict):
    """Where the data broke its contract."""

    feature: str
    description: str


@dataclasses.dataclass(frozen=True, eq=False)
class Predictions(Strict):
    """What the models said about each image of the test split.

    Attributes:
        labels: int64[N], indices into the dataset's classes.
        student: float[N, C], rows sum to 1.
        teacher: float[N, C], or None.
        subjects: unicode[N], or None for slice-level data.
        slice_index: int64[N], or None.
    """

    labels: np.ndarray
    student: np.ndarray
    teacher: np.ndarray | None = None
    subjects: np.ndarray | None = None
    slice_index: np.ndarray | None = None

    def __post_init__(self):
        rows = len(self.labels)
        if self.student.ndim != 2 or not np.issubdtype(self.labels.dtype, np.integer):
            raise EvidenceError(
                "predictions need labels int[N] and student float[N, C] (received labels "
                f"{self.labels.dtype}{self.labels.shape}, student {self.student.shape})."
            )
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if value is not None and value.dtype.hasobject:
                raise EvidenceError(
                    f"predictions.{field.name} holds Python objects, which only pickle stores. "
                    "Convert it, for example with .astype(str)."
                )
            if value is not None and len(value) != rows:
                raise EvidenceError(
                    f"predictions.{field.name} needs one row per label "
                    f"(received {len(value)} rows, {rows} labels)."
                )
        if self.teacher is not None and self.teacher.shape != self.student.shape:
            raise EvidenceError(
                "teacher and student must judge the same images and classes "
                f"(received {self.teacher.shape} and {self.student.shape})."
            )


@dataclasses.dataclass(frozen=True)
class Sample(Strict):
    """One test image shown in the report: its row in `Predictions` and its PNG or JPEG bytes."""

    row: int
    image: bytes


@dataclasses.dataclass(frozen=True)
class Node(Strict):
    """One node of the pipeline and how it ended."""

    id: str
    state: NodeState
    seconds: float | None = None


@dataclasses.dataclass(frozen=True)
class Pushed(Strict):
    """The registry version that this run made."""

    version: int
    path: str = ""
    live: bool = False


@dataclasses.dataclass(frozen=True)
class LiteRt(Strict):
    """One exported LiteRT file.

    Attributes:
        size: bytes.
        agreement: share of images given the same class as by the SavedModel, in [0, 1].
    """

    file: str
    size: int
    agreement: float | None = None


@dataclasses.dataclass(frozen=True)
class Calibration(Strict):
    """What a classifier's logits are divided by, and what that does on the validation split.

    Attributes:
        temperature: 1 where none could be told.
        before: expected calibration error of the logits as they are, in [0, 1].
        after: of the logits divided.
    """

    temperature: float
    before: float
    after: float


@dataclasses.dataclass(frozen=True)
class Override(Strict):
    """A person let a model through that the gate did not; stays with the run for good."""

    who: str
    reason: str
    when: str = ""


@dataclasses.dataclass(frozen=True)
class Evidence(Strict):
    """All that a report needs. Only `run` is certain to be there.

    Attributes:
        statistics: split → descriptor → statistics.
        histories: stage ("pretrain", "teacher", "student") → one dict per epoch.
        calibrations: stage → its temperature, where one was sought.
        baselines: name → level ("subject" or "slice") → metric → value, as `ModelGate` measures.
        tfma: the Evaluator's own numbers.
        decision: ModelGate's; `judgement.py` reads its details.
        control: ShuffleControl's.
        serving: ServingCheck's.
        input_gate: the student's; None where it has none, or one that cannot be read.
        lineage: what was used → its digest or name.
    """

    run: Run
    config: dict[str, Any] = dataclasses.field(default_factory=dict)
    dataset: Dataset | None = None
    statistics: dict[str, dict[str, Descriptor]] = dataclasses.field(default_factory=dict)
    anomalies: tuple[Anomaly, ...] = ()
    histories: dict[str, tuple[Metrics, ...]] = dataclasses.field(default_factory=dict)
    calibrations: dict[str, Calibration] = dataclasses.field(default_factory=dict)
    predictions: Predictions | None = None
    samples: tuple[Sample, ...] = ()
    baselines: dict[str, dict[Level, Metrics]] = dataclasses.field(default_factory=dict)
    tfma: Metrics = dataclasses.field(default_factory=dict)
    decision: Decision | None = None
    nodes: tuple[Node, ...] = ()
    pushed: Pushed | None = None
    litert: tuple[LiteRt, ...] = ()
    leakage: Leakage | None = None
    drift: Drift | None = None
    control: Decision | None = None
    serving: Decision | None = None
    input_gate: InputGate | None = None
    override: Override | None = None
    lineage: dict[str, str] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if self.predictions is None:
            if self.samples:
                raise EvidenceError("samples are rows of predictions, and there are none.")
            return
        if self.dataset is None or self.predictions.student.shape[1] != len(self.dataset.classes):
            classes = None if self.dataset is None else self.dataset.classes
            raise EvidenceError(
                "predictions need a dataset with one class per column "
                f"(received {self.predictions.student.shape[1]} columns, classes {classes})."
            )
        rows = len(self.predictions.labels)
        for sample in self.samples:
            if not 0 <= sample.row < rows:
                raise EvidenceError(f"sample row {sample.row} is not among {rows} predictions.")
