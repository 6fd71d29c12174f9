"""Changes to be interrupted, and what an interruption left behind.

As a program (`python crashes.py FOLDER CHANGE STEP`), in a process of its own because it forks:
kills a child before, halfway through and after every primitive of the change, or every STEPth;
prints one JSON object per death.
"""

import dataclasses
import json
import os
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

from faults import Counted, Killed, Unsynced, on

from registry import serving_config
from registry.interface import RegistryError, Traffic
from registry.keys import Keys
from registry.local import LocalRegistry

WHY = {"reason": "test", "who": "tester"}
MOMENTS = ("before", "halfway", "after")


def model(folder: Path, content: str) -> Path:
    """A folder that looks like an exported model."""
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_text(content)
    (folder / "variables" / "variables.index").write_text("index of " + content)
    return folder


def push(registry: LocalRegistry, source: Path):
    """Pushes with nothing to tell."""
    return registry.push(source, metrics={}, lineage={}, **WHY)


@dataclasses.dataclass(frozen=True)
class Change:
    """A change to be interrupted.

    Attributes:
        before: how many versions are pushed first; the last is live.
        make: the change, of a registry and a new model's folder.
        traffic: who answers after it.
        numbers: the versions after it.
        signed: keys are set.
        prepare: a change that dies halfway first, so that the change settles it.
        canary: version that is the canary before it.
    """

    before: int
    make: Callable[[LocalRegistry, Path], object]
    traffic: Traffic
    numbers: tuple[int, ...]
    signed: bool = False
    prepare: str = ""
    canary: int | None = None

    @property
    def was(self) -> Traffic:
        """Who answered before it."""
        percent = 20 if self.canary else 0
        return Traffic(self.before or None, self.canary, percent)

    def keys(self, work: Path) -> Keys:
        """The keys that are set."""
        secret = work / "secret"
        if self.signed:
            secret.write_text("0123456789abcdef" * 2)
        return Keys(secret, secret, secret) if self.signed else Keys()

    def built(self, root: Path, work: Path) -> LocalRegistry:
        """A registry as it is before the change."""
        registry = LocalRegistry(root, "student", self.keys(work))
        for number in range(self.before):
            push(registry, model(work / f"model-{number}", f"m{number}"))
        if self.canary:
            registry.set_traffic(self.canary, 20, **WHY)
        return registry


CHANGES = {
    "first push": Change(0, push, Traffic(1), (1,)),
    "push": Change(2, push, Traffic(3), (1, 2, 3)),
    "signed push": Change(2, push, Traffic(3), (1, 2, 3), signed=True),
    "push again": Change(2, lambda r, s: push(r, r.path(1)), Traffic(1), (1, 2)),
    "promote": Change(2, lambda r, s: r.promote(1, **WHY), Traffic(1), (1, 2), signed=True),
    "promote canary": Change(3, lambda r, s: r.promote(1, **WHY), Traffic(1), (1, 2, 3), canary=1),
    "rollback": Change(2, lambda r, s: r.rollback(to=1, **WHY), Traffic(1), (1, 2), canary=1),
    "set traffic": Change(
        2, lambda r, s: r.set_traffic(1, 5, **WHY), Traffic(2, 1, 5), (1, 2), canary=1
    ),
    "end canary": Change(2, lambda r, s: r.set_traffic(None, 0, **WHY), Traffic(2), (1, 2)),
    "gc": Change(5, lambda r, s: r.gc(1, **WHY), Traffic(5), (4, 5)),
    "settle": Change(2, lambda r, s: r.promote(1, **WHY), Traffic(1), (1, 2), prepare="push"),
}
CHANGES["end canary"] = dataclasses.replace(CHANGES["end canary"], canary=1)


def inspect(registry: LocalRegistry) -> dict:
    """What a reader and a server see now; every version is read byte by byte."""
    folder = registry.path(1).parent
    names = sorted(os.listdir(folder)) if folder.exists() else []
    traffic = registry.traffic()
    audit = registry.audit()
    return {
        "traffic": dataclasses.astuple(traffic),
        "versions": [registry.verify(version.number).number for version in registry.versions()],
        "numbered": sorted(int(name) for name in names if name.isdigit()),
        "loaded": loaded(registry),
        "states": [event.state for event in registry.history()],
        "hidden": [name for name in names if name.startswith(".")],
        "faults": audit.faults,
    }


def sound(seen: dict, change: Change) -> bool:
    """Whether a registry in the middle of a change is one that can serve and be gone on with."""
    return (
        tuple(seen["traffic"])
        in (dataclasses.astuple(change.was), dataclasses.astuple(change.traffic))
        and seen["versions"] == seen["numbered"]  # nothing partial has a number
        and set(seen["loaded"]) <= set(seen["versions"])  # the pointer never dangles
        and {n for n in seen["traffic"][:2] if n} <= set(seen["loaded"])
        and not seen["faults"]
    )


def finished(seen: dict, change: Change) -> bool:
    """Whether a repeated change is done, with nothing left over."""
    return (
        sound(seen, change)
        and tuple(seen["traffic"]) == dataclasses.astuple(change.traffic)
        and tuple(seen["versions"]) == change.numbers
        and not seen["hidden"]
        and "unfinished" not in seen["states"]
    )


def loaded(registry: LocalRegistry) -> list[int]:
    """Versions that a server started now would load."""
    file = registry.root / "models.config"
    entries = serving_config.parse(file.read_text()) if file.exists() else ()
    return [number for entry in entries for number in entry.versions]


def points(change: Change, root: Path, keys: Keys, source: Path) -> list[str]:
    """The primitives of one clean run of a change, on the registry in `root`."""
    counted = Counted()
    with on(counted):
        change.make(LocalRegistry(root, "student", keys), source)
    return counted.names


def die(root: Path, keys: Keys, act: Callable, source: Path, nth: int, moment: str) -> None:
    """Makes a change in a child that is killed at the given point."""
    child = os.fork()
    if child == 0:
        with on(Killed(nth, moment)):
            act(LocalRegistry(root, "student", keys), source)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    if status != -signal.SIGKILL:
        raise AssertionError(f"The child was to die {moment} call {nth} and exited {status}.")


def prepared(work: Path, change: Change, source: Path) -> tuple[Path, Keys]:
    """A registry before the change, to be copied for every attempt."""
    template = work / "template"
    registry = change.built(template, work)
    if change.prepare:
        other = CHANGES[change.prepare]
        shutil.copytree(template, work / "count")
        names = points(other, work / "count", change.keys(work), source)
        die(template, change.keys(work), other.make, source, names.index("rename") - 4, "after")
        assert "unfinished" in [event.state for event in registry.history()] or any(
            name.startswith(".staging") for name in os.listdir(registry.path(1).parent)
        )
    template.mkdir(exist_ok=True)
    return template, change.keys(work)


def deaths(work: Path, name: str, step: int) -> Iterator[dict]:
    """Dies at every `step`th point of a change, on a fresh copy each time, and repeats it."""
    change = CHANGES[name]
    source = model(work / "model-new", "new")
    template, keys = prepared(work, change, source)
    shutil.copytree(template, work / "clean")
    names = points(change, work / "clean", keys, source)
    for nth, primitive in list(enumerate(names))[::step]:
        for moment in MOMENTS if primitive == "write" else ("before", "after"):
            folder = work / f"{nth}-{moment}"
            shutil.copytree(template, folder)
            die(folder, keys, change.make, source, nth, moment)
            registry = LocalRegistry(folder, "student", keys)
            crashed = inspect(registry)
            try:
                change.make(registry, source)
                error = ""
            except RegistryError as refused:
                error = str(refused)
            repeated = inspect(registry)
            shutil.rmtree(folder)
            yield {
                "point": f"{moment} {primitive} {nth}",
                "sound": sound(crashed, change),
                "finished": finished(repeated, change) and not error,
                "seen": [crashed, error, repeated],
            }


if __name__ == "__main__":
    with on(Unsynced()):
        for death in deaths(Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])):
            print(json.dumps(death))
