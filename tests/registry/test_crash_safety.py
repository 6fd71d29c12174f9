"""Wherever a change dies, a verified version serves and the command can be repeated."""

import errno
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from crashes import CALLS, CHANGES, FINAL, inspect, model, push

from registry.interface import RegistryError
from registry.local import LocalRegistry

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.parametrize("change", CHANGES)
def test_dying_anywhere_leaves_a_whole_registry(tmp_path, change):
    before = CHANGES[change][0]
    run = subprocess.run(
        [sys.executable, Path(__file__).with_name("crashes.py"), tmp_path, change],
        check=False,
        capture_output=True,
        text=True,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        timeout=300,
    )
    assert run.returncode == 0, run.stderr
    deaths = [json.loads(line) for line in run.stdout.splitlines()]
    assert len(deaths) >= (60 if "push" in change else 20)  # every write, fsync and rename, thrice
    was_live = before or None
    for death in deaths:
        crashed, repeated = death["crashed"], death["repeated"]
        assert crashed["live"] in (was_live, FINAL[change]), death
        assert crashed["versions"] == crashed["numbered"], death  # nothing partial has a number
        assert set(crashed["loaded"]) <= set(crashed["versions"]), death
        assert death["answer"] == FINAL[change], death
        assert repeated["live"] == FINAL[change], death
        assert repeated["versions"] == list(range(1, max(before, FINAL[change]) + 1)), death
        assert not repeated["hidden"], death
        assert "unfinished" not in repeated["states"], death


@pytest.mark.parametrize("change", CHANGES)
def test_a_full_disk_anywhere_refuses_the_change(tmp_path, change, monkeypatch):
    before, act = CHANGES[change]
    source = model(tmp_path / "new", "new")
    models = [model(tmp_path / f"m{number}", f"m{number}") for number in range(before)]
    for nth in itertools.count():
        registry = LocalRegistry(tmp_path / f"registry-{nth}", "student")
        for folder in models:
            push(registry, folder)
        with monkeypatch.context() as patched:
            failed = fail_at(patched, nth)
            message = refusal(act, registry, source)
        if not failed:
            break
        assert "No space left" in message
        seen = inspect(registry)
        assert seen["live"] in (before or None, FINAL[change])
        assert seen["versions"] == seen["numbered"]
        assert act(registry, source).number == FINAL[change]
        assert inspect(registry)["live"] == FINAL[change]
    assert nth > 5
    assert message == ""


def refusal(act, registry, source):
    """The error's message, empty when the change was made."""
    try:
        act(registry, source)
    except RegistryError as error:
        return str(error)
    return ""


def fail_at(patched, nth):
    """Makes the nth call of CALLS raise ENOSPC; the list it returns tells whether it did."""
    calls, failed = itertools.count(), []

    def wrap(original):
        def call(*arguments, **keywords):
            if next(calls) == nth:
                failed.append(nth)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            return original(*arguments, **keywords)

        return call

    for name in CALLS:
        patched.setattr(os, name, wrap(getattr(os, name)))
    return failed


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
            env=os.environ | {"PYTHONPATH": str(ROOT)},
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
