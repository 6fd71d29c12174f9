"""Dies at every write, fsync and rename of a change, and reports what each death left behind.

Run as a program in a process of its own, because it forks: `python crashes.py FOLDER CHANGE`.
Prints one JSON object per death.
"""

import itertools
import json
import os
import shutil
import sys
from pathlib import Path

from registry import serving_config
from registry.interface import RegistryError
from registry.local import LocalRegistry

DIED = 17
CALLS = ("write", "fsync", "rename", "replace")
WHY = {"reason": "test", "who": "tester"}


def model(folder: Path, content: str) -> Path:
    """A folder that looks like an exported model."""
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_text(content)
    (folder / "variables" / "variables.index").write_text("index of " + content)
    return folder


def push(registry: LocalRegistry, source: Path):
    """Pushes with nothing to tell."""
    return registry.push(source, metrics={}, lineage={}, **WHY)


CHANGES = {
    "first push": (0, push),
    "push": (2, push),
    "promote": (2, lambda registry, source: registry.promote(1, **WHY)),
    "rollback": (2, lambda registry, source: registry.rollback(to=1, **WHY)),
}
FINAL = {"first push": 1, "push": 3, "promote": 1, "rollback": 1}


def die_at(nth: int, moment: str) -> None:
    """Makes the nth call of CALLS fatal: before, halfway through (writes) or after it."""
    calls = itertools.count()

    def wrap(original, name):
        def call(*arguments, **keywords):
            fatal = next(calls) == nth
            if fatal and moment == "halfway" and name == "write":
                descriptor, content = arguments
                original(descriptor, bytes(content)[: len(content) // 2])
            if fatal and moment != "after":
                os._exit(DIED)
            result = original(*arguments, **keywords)
            if fatal:
                os._exit(DIED)
            return result

        return call

    for name in CALLS:
        setattr(os, name, wrap(getattr(os, name), name))


def attempt(folder: Path, change: str, nth: int, moment: str, source: Path) -> bool:
    """Makes the change in a child that dies at the given point; False when it lived."""
    child = os.fork()
    if child == 0:
        die_at(nth, moment)
        CHANGES[change][1](LocalRegistry(folder, "student"), source)
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == DIED


def inspect(registry: LocalRegistry) -> dict:
    """What a reader and a server see now; every version is read byte by byte."""
    folder = registry.path(1).parent
    numbered = [int(n) for n in os.listdir(folder) if n.isdigit()] if folder.exists() else []
    live = registry.live()
    return {
        "live": live and registry.verify(live.number).number,
        "versions": [registry.verify(version.number).number for version in registry.versions()],
        "numbered": sorted(numbered),
        "loaded": sorted(n for n in loaded(registry)),
        "states": [event.state for event in registry.history()],
        "hidden": sorted(n for n in os.listdir(folder) if n.startswith("."))
        if folder.exists()
        else [],
    }


def loaded(registry: LocalRegistry) -> list[int]:
    """Versions that a server started now would load."""
    file = registry.root / "models.config"
    entries = serving_config.parse(file.read_text()) if file.exists() else ()
    return [number for entry in entries for number in entry.versions]


def main(work: Path, change: str) -> None:
    """Tries every point of the change, on a fresh copy each time."""
    before, repeat = CHANGES[change]
    template = work / "template"
    for number in range(before):
        push(LocalRegistry(template, "student"), model(work / f"model-{number}", f"m{number}"))
    source = model(work / "model-new", "new")
    for moment in ("before", "halfway", "after"):
        for nth in itertools.count():
            folder = work / f"{moment}-{nth}"
            if before:
                shutil.copytree(template, folder)
            if not attempt(folder, change, nth, moment, source):
                break
            registry = LocalRegistry(folder, "student")
            outcome = {"moment": moment, "nth": nth, "crashed": inspect(registry)}
            try:
                outcome["answer"] = repeat(registry, source).number
            except RegistryError as error:
                outcome["answer"] = str(error)
            print(json.dumps(outcome | {"repeated": inspect(registry)}))


if __name__ == "__main__":
    main(Path(sys.argv[1]), sys.argv[2])
