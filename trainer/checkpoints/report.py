"""What became of every variable of a checkpoint, as text to read and as JSON to keep."""

import json
from collections import Counter
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from trainer.checkpoints.aliases import architecture_of
from trainer.config import BackboneSettings


@dataclass(frozen=True)
class Used:
    """A variable that was taken.

    Attributes:
        place: its place in the network, as TensorFlow 1 would name it.
        name: what the file calls it.
        shape: in our network.
        how: `copied`; `folded`, a kernel summed over its input channels, for grey images; or
            `spread`, a kernel for grey images divided over three channels.
    """

    place: str
    name: str
    shape: tuple[int, ...]
    how: Literal["copied", "folded", "spread"] = "copied"


@dataclass(frozen=True)
class Unused:
    """A variable of the file that was not taken, and why."""

    name: str
    shape: tuple[int, ...]
    why: str


@dataclass(frozen=True)
class Verification:
    """How far the transferred network's answers are from the original's.

    Attributes:
        errors: by output: the largest difference, relative to the largest value; empty when the
            original cannot be called.
        reason: why nothing was compared, or of what.
    """

    errors: dict[str, float] = field(default_factory=dict)
    reason: str = ""

    @property
    def verified(self) -> bool:
        """Whether the original was called and agreed."""
        return bool(self.errors)

    def __str__(self) -> str:
        if not self.verified:
            return f"not verified: {self.reason}"
        told = ", ".join(f"{name} {error:.1e}" for name, error in self.errors.items())
        return f"verified on a probe batch; largest relative errors: {told}"


@dataclass(frozen=True)
class TransferReport:
    """What was read, and what became of it.

    Attributes:
        origin: where it was read.
        format: what wrote it.
        matched_by: object `path` or variable `name`.
        backbone: the network that was found.
        projection_layers: of the projection head; 0 when there is none.
        head_outputs: outputs of the supervised head; None when there is none.
        used: every variable of our network that the file filled.
        unused: every variable of the file that was not taken.
        missing: parts of SimCLR's network that the file lacks; a network lacking one variable of a
            part is refused.
        verification: of the answers.
    """

    origin: str
    format: str
    matched_by: str
    backbone: BackboneSettings
    projection_layers: int
    head_outputs: int | None
    used: tuple[Used, ...]
    unused: tuple[Unused, ...]
    missing: tuple[str, ...]
    verification: Verification

    def document(self) -> dict[str, Any]:
        """The same as plain data."""
        return asdict(self) | {
            "backbone": self.backbone.model_dump(),
            "verified": self.verification.verified,
        }

    def json(self) -> str:
        """The same as indented JSON."""
        return json.dumps(self.document(), indent=1) + "\n"

    def text(self, *, every: bool = False) -> str:
        """The same to read.

        Args:
            every: list each variable that was used too.
        """
        how = Counter(variable.how for variable in self.used)
        counted = ", ".join(f"{count} {name}" for name, count in how.items())
        head = "none" if self.head_outputs is None else f"{self.head_outputs} outputs"
        lines = [
            f"{self.origin}",
            f"  format           {self.format}, matched by {self.matched_by}",
            f"  backbone         {architecture_of(self.backbone)}  {self.backbone}",
            f"  projection head  {self.projection_layers or 'no'} layers",
            f"  supervised head  {head}",
            f"  used             {len(self.used)} variables ({counted})",
        ]
        if every:
            lines += [f"    {u.place}  {list(u.shape)}  {u.how}  ← {u.name}" for u in self.used]
        lines.append(f"  unused           {len(self.unused)} variables")
        lines += [f"    {u.name}  {list(u.shape)}  ({u.why})" for u in self.unused]
        lines.append(f"  missing          {'; '.join(self.missing) or 'nothing'}")
        lines.append(f"  answers          {self.verification}")
        return "\n".join(lines)
