"""A backend of files, and the trigger as a program on it, which a test may kill.

    python -m tests.pipeline.file_backend FOLDER OPTION…

Files in FOLDER steer it: `down` makes each call fail, `slow` holds the number of seconds that a
submission takes, `die` kills the process right after the run exists.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

from pipeline.backends.interface import BackendError, Run


class FileBackend:
    """Runs are files, named in order."""

    def __init__(self, folder: Path):
        self.uri = "kubeflow://files"
        self._folder = folder

    def _reach(self) -> None:
        if (self._folder / "down").exists():
            raise BackendError("The cluster cannot be reached: connection refused.")

    def submit(self, package, request, *, version=""):
        """Writes a run's file."""
        self._reach()
        if (self._folder / "slow").exists():
            time.sleep(float((self._folder / "slow").read_text()))
        told = {"package": package, **request.model_dump()}
        number = len(list(self._folder.glob("run-*.json"))) + 1
        draft = self._folder / f"draft-{number}"
        draft.write_text(json.dumps(told))
        draft.rename(self._folder / f"run-{number}.json")
        if (self._folder / "die").exists():
            os.kill(os.getpid(), signal.SIGKILL)
        return Run(
            id=f"run-{number}",
            name=request.name,
            pipeline="p",
            status="pending",
            url=f"https://runs.example.org/run-{number}",
        )

    def runs(self, limit=50):
        """The runs that exist, newest first; without labels, as Kubeflow keeps none."""
        self._reach()
        files = sorted(self._folder.glob("run-*.json"), reverse=True)[:limit]
        return [
            Run(
                id=file.stem,
                name=json.loads(file.read_text())["name"],
                pipeline="p",
                status="pending",
            )
            for file in files
        ]


def submitted(folder: Path) -> list[dict]:
    """What was submitted, in order."""
    return [json.loads(file.read_text()) for file in sorted(folder.glob("run-*.json"))]


if __name__ == "__main__":
    from pipeline.trigger import main

    place = Path(sys.argv[1])
    sys.exit(main(sys.argv[2:], lambda _: FileBackend(place)))
