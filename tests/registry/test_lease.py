"""One change at a time, with the holder's name on it."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from crashes import WHY, model, push

from registry import changes, lease
from registry.interface import RegistryError, Traffic
from registry.local import LocalRegistry

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def registry(tmp_path):
    made = LocalRegistry(tmp_path / "registry", "student")
    for number in (1, 2):
        push(made, model(tmp_path / str(number), f"graph {number}"))
    return made


@pytest.fixture
def impatient(monkeypatch):
    monkeypatch.setattr(lease, "TIMEOUT", 0.05)


def left_by(registry, **fields):
    """A lease as another host would leave it."""
    now = time.time()
    mine = {"who": "ann", "host": "far", "kernel": "other", "pid": 7, "token": "t"}
    mine |= {"since": now, "until": now + 60} | fields
    (registry.root / ".lock").write_text(json.dumps(mine))


def test_the_holder_is_named_while_it_holds(tmp_path):
    path = tmp_path / ".lock"
    with lease.held(path, "ann", 1) as hold:
        hold.check()
        found = lease.holder(path)
        assert (found.who, found.pid) == ("ann", os.getpid())
        assert found.until - found.since == lease.SECONDS
        with (
            pytest.raises(TimeoutError, match=f"held by ann on .*process {os.getpid()}, since"),
            lease.held(path, "bob", 0.05),
        ):
            pass
    assert lease.holder(path) is None
    with lease.held(path, "bob", 1):
        assert lease.holder(path).who == "bob"


def test_another_hosts_lease_is_respected_until_it_ends(registry, impatient):
    left_by(registry)
    with pytest.raises(RegistryError, match="held by ann on far, process 7"):
        registry.rollback(**WHY)
    assert registry.traffic() == Traffic(2)
    left_by(registry, until=time.time() - 1)
    assert registry.rollback(**WHY).number == 1


def test_a_dead_holder_of_this_host_is_not_waited_for(registry, impatient):
    with lease.held(registry.root / ".lock", "ann", 1):
        content = (registry.root / ".lock").read_bytes()
    (registry.root / ".lock").write_bytes(content)  # as kill -9 leaves it
    assert registry.rollback(**WHY).number == 1


HOLDS = """
import sys, time
from pathlib import Path
from registry import lease
with lease.held(Path(sys.argv[1]), "ann", 1):
    print("held", flush=True)
    time.sleep(60)
"""


def test_kill_9_frees_the_lock(registry, impatient):
    lock = registry.root / ".lock"
    with subprocess.Popen(
        [sys.executable, "-c", HOLDS, lock],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert process.stdout.readline() == "held\n"
        with pytest.raises(RegistryError, match=f"held by ann on .*process {process.pid}"):
            registry.rollback(**WHY)
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert lease.holder(lock).pid == process.pid
        assert registry.rollback(**WHY).number == 1


def test_a_holder_that_lost_its_lease_moves_nothing(registry, monkeypatch):
    """It was paused; meanwhile its lease ended and another host took over."""
    real = LocalRegistry.verify

    def paused(self, version):
        left_by(registry)
        return real(self, version)

    monkeypatch.setattr(LocalRegistry, "verify", paused)
    before = registry.history()
    with pytest.raises(RegistryError, match="taken over by ann on far"):
        registry.promote(1, **WHY)
    assert registry.traffic() == Traffic(2)
    assert registry.history() == before


def test_a_holder_that_lost_its_lease_after_its_intent_does_not_move_the_pointer(
    registry, monkeypatch
):
    real = changes.Changes.back

    def paused(self, moves, live):
        left_by(registry)
        return real(self, moves, live)

    monkeypatch.setattr(changes.Changes, "back", paused)
    with pytest.raises(RegistryError, match="taken over"):
        registry.promote(1, **WHY)
    monkeypatch.undo()
    assert registry.traffic() == Traffic(2)
    left_by(registry, until=0)
    registry.promote(1, **WHY)
    assert [event.state for event in registry.history()[-2:]] == ["abandoned", "done"]


def test_a_lease_that_ended_is_no_lease(tmp_path, monkeypatch):
    with lease.held(tmp_path / ".lock", "ann", 1) as hold:
        now = time.time()
        monkeypatch.setattr(lease.time, "time", lambda: now + lease.SECONDS + 1)
        with pytest.raises(RegistryError, match=r"ended 1 s ago"):
            hold.check()


def test_a_lease_is_renewed_when_half_of_it_is_over(tmp_path, monkeypatch):
    path = tmp_path / ".lock"
    with lease.held(path, "ann", 1) as hold:
        before, now = lease.holder(path), time.time()
        hold.check()
        assert lease.holder(path) == before
        monkeypatch.setattr(lease.time, "time", lambda: now + 0.6 * lease.SECONDS)
        hold.check()
        after = lease.holder(path)
        assert after.token == before.token
        assert after.until == pytest.approx(now + 1.6 * lease.SECONDS)


@pytest.mark.parametrize("content", ["", "{", "[]", '{"who": "ann"}'])
def test_a_lease_that_cannot_be_read_is_none(registry, content):
    (registry.root / ".lock").write_text(content)
    assert lease.holder(registry.root / ".lock") is None
    assert registry.rollback(**WHY).number == 1


def test_a_removed_lock_file_locks_nobody_out_twice(registry):
    lock = registry.root / ".lock"
    with lease.held(lock, "ann", 1) as hold:
        lock.unlink()
        with pytest.raises(RegistryError, match="nobody known"):
            hold.check()
    assert registry.rollback(**WHY).number == 1
