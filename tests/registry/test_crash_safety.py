"""Wherever a change dies, fails or loses its power, a verified version serves and it can be redone.

The points are found by counting the primitives of one clean run (`faults.Counted`), so a new one is
covered as soon as it is there.
"""

import ast
import dataclasses
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from crashes import CHANGES, finished, inspect, model, points, prepared, push, sound
from faults import Broken, Disk, Full, Unsynced, lay, on

from registry.interface import RegistryError
from registry.local import LocalRegistry

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENT = os.environ | {"PYTHONPATH": str(ROOT)}


# Every point takes a minute or two; every seventh, which is no period of the primitives, seconds.
STEPS = pytest.mark.parametrize("step", [7, pytest.param(1, marks=pytest.mark.slow)])


@STEPS
@pytest.mark.parametrize("name", CHANGES)
def test_kill_9_anywhere_leaves_a_whole_registry(quick, name, step):
    run = subprocess.run(
        [sys.executable, Path(__file__).with_name("crashes.py"), quick, name, str(step)],
        check=False,
        capture_output=True,
        text=True,
        env=ENVIRONMENT,
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    deaths = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(deaths) >= 50 / step
    assert [death for death in deaths if not death["sound"]] == []
    assert [death for death in deaths if not death["finished"]] == []


@STEPS
@pytest.mark.parametrize("name", CHANGES)
@pytest.mark.parametrize("fault", [Full, Broken])
def test_an_error_anywhere_refuses_the_change(quick, name, fault, step):
    change = CHANGES[name]
    source = model(quick / "model-new", "new")
    with on(Unsynced()):
        template, keys = prepared(quick, change, source)
        shutil.copytree(template, quick / "clean")
        names = points(change, quick / "clean", keys, source)
    refused = 0
    for nth, primitive in list(enumerate(names))[::step]:
        for moment in ("before", "halfway" if primitive == "write" else "after"):
            folder = quick / f"{nth}-{moment}"
            shutil.copytree(template, folder)
            registry = LocalRegistry(folder, "student", keys)
            system = fault(nth, moment)
            with on(system):
                message = refusal(change, registry, source)
            with on(Unsynced()):
                seen = inspect(registry)
                assert sound(seen, change), (moment, primitive, nth, message, seen)
                assert bool(message) <= bool(system.failed)
                refused += bool(message)
                if message:
                    live = seen["traffic"][0]
                    moved = seen["traffic"] != dataclasses.astuple(change.was)
                    assert (f"Version {live} is live" if moved else "is as it was") in message
                assert refusal(change, registry, source) == ""
                assert finished(inspect(registry), change), (moment, primitive, nth)
            shutil.rmtree(folder)
    assert refused > len(names) / 2 / step


def refusal(change, registry, source):
    """The error's message, empty when the change was made."""
    try:
        change.make(registry, source)
    except RegistryError as error:
        return str(error)
    return ""


@pytest.mark.parametrize("name", CHANGES)
def test_a_power_cut_anywhere_leaves_a_whole_registry(quick, name):
    change = CHANGES[name]
    source = model(quick / "model-new", "new")
    with on(Unsynced()):
        template, keys = prepared(quick, change, source)
    work = quick / "work" / "registry"
    shutil.copytree(template, work)
    disk = Disk(quick / "work")
    with on(disk):
        change.make(LocalRegistry(work, "student", keys), source)
    assert "fsync" in disk.names
    for nth, states in enumerate(disk.states):
        # What was not synced is lost; or its name survives, and its bytes are lost.
        for survives, state in states.items():
            shutil.rmtree(quick / "work")
            lay(state, quick / "work")
            where = (survives, nth, disk.names[nth])
            registry = LocalRegistry(work, "student", keys)
            if not work.exists() and not change.before:
                continue
            with on(Unsynced()):
                seen = inspect(registry)
                assert sound(seen, change), (where, seen)
                assert refusal(change, registry, source) == "", where
                assert finished(inspect(registry), change), where
    # Once the command has answered, its change survives as well.
    assert seen["traffic"] == dataclasses.astuple(change.traffic)


def test_without_syncs_a_power_cut_would_lose_the_model(quick):
    """The proof proves something: it fails for a registry that syncs nothing."""
    change = CHANGES["push"]
    source = model(quick / "model-new", "new")
    with on(Unsynced()):
        shutil.copytree(prepared(quick, change, source)[0], quick / "work" / "registry")

    class Careless(Disk):
        def fsync(self, descriptor):
            self._remember("fsync")

    disk = Careless(quick / "work")
    with on(disk):
        push(LocalRegistry(quick / "work" / "registry", "student"), source)
    shutil.rmtree(quick / "work")
    lay(disk.states[-1]["entries"], quick / "work")
    with pytest.raises(RegistryError):
        inspect(LocalRegistry(quick / "work" / "registry", "student"))


def test_every_primitive_goes_through_the_seam():
    """Nothing in the registry changes the disk where no fault can be injected."""
    ours = {"open", "rename", "replace", "unlink", "remove", "rmdir", "mkdir", "makedirs", "write"}
    ours |= {"fsync", "truncate", "ftruncate", "link", "symlink", "rmtree", "move", "copyfile"}
    paths = {"write_text", "write_bytes", "unlink", "rmdir", "mkdir", "touch", "rename"}
    around = []
    for file in (ROOT / "registry").glob("*.py"):
        if file.name.startswith(("bucket", "vertex")) or file.name == "durable.py":
            continue
        for node in ast.walk(ast.parse(file.read_text())):
            if not isinstance(node, ast.Attribute):
                continue
            owner = ast.unparse(node.value)
            reads = (file.name, node.attr) == ("manifest.py", "open")
            if (owner in ("os", "shutil") and node.attr in ours and not reads) or (
                node.attr in paths and not owner.startswith("durable")
            ):
                around.append(f"{file.name}: {owner}.{node.attr}")
    assert around == []


PUSHES = """
import sys
sys.path.insert(0, {here!r})
from pathlib import Path
from crashes import push
from registry.local import LocalRegistry
for source in sys.argv[2:]:
    print(push(LocalRegistry(sys.argv[1], "student"), Path(source)).number)
"""


def test_two_processes_push_at_once(tmp_path):
    shared = model(tmp_path / "shared", "shared")
    own = [[model(tmp_path / f"{p}-{n}", f"{p} {n}") for n in range(4)] for p in "ab"]
    program = PUSHES.format(here=str(Path(__file__).parent))
    running = [
        subprocess.Popen(
            [sys.executable, "-c", program, tmp_path / "registry", *sources, shared],
            env=ENVIRONMENT,
            stdout=subprocess.PIPE,
            text=True,
        )
        for sources in own
    ]
    numbers = [int(n) for process in running for n in process.communicate(timeout=120)[0].split()]
    assert [process.returncode for process in running] == [0, 0]
    registry = LocalRegistry(tmp_path / "registry", "student")
    assert len(numbers) == 10
    assert sorted(set(numbers)) == list(range(1, 10))  # both pushed `shared`: one version
    assert [registry.verify(v.number).number for v in registry.versions()] == list(range(1, 10))
    assert registry.live().digest == push(registry, shared).digest
    assert registry.audit().faults == ()
