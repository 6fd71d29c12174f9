"""Where a run keeps its things (docs/architecture.md, "Workspace")."""

import dataclasses
import os
from pathlib import Path

VARIABLE = "CORTEXFLOW_WORKSPACE"


@dataclasses.dataclass(frozen=True)
class Workspace:
    """One folder with everything that cortexflow writes."""

    root: Path

    @classmethod
    def at(cls, path: str | os.PathLike | None = None) -> "Workspace":
        """The given folder, else `$CORTEXFLOW_WORKSPACE`, else `./workspace`."""
        return cls(Path(path or os.environ.get(VARIABLE) or "workspace").resolve())

    @property
    def phantoms(self) -> Path:
        """Generated phantoms by content hash."""
        return self.root / "phantoms"

    @property
    def checkpoints(self) -> Path:
        """Training state, to go on from after a kill; a few states per stage are kept."""
        return self.root / "checkpoints"

    @property
    def pretrained(self) -> Path:
        """Checkpoints of others: as they were downloaded, and as base models."""
        return self.root / "pretrained"

    @property
    def registry(self) -> Path:
        """Model versions in TF Serving's layout."""
        return self.root / "registry"

    @property
    def touches(self) -> Path:
        """Which candidates have been judged by which test people."""
        return self.root / "touches"

    @property
    def runs(self) -> Path:
        """One folder per run."""
        return self.root / "runs"

    def dataset(self, name: str) -> Path:
        """An imported dataset."""
        return self.root / "data" / name

    def pipeline_root(self, pipeline: str) -> Path:
        """Artifacts of a pipeline's nodes."""
        return self.root / "pipelines" / pipeline

    def metadata(self, pipeline: str) -> Path:
        """MLMD database of a pipeline."""
        return self.root / "metadata" / f"{pipeline}.db"

    def lock(self, pipeline: str) -> Path:
        """Held while a run of this pipeline is going on."""
        return self.root / "metadata" / f"{pipeline}.lock"
