"""The history proves itself: what was edited, removed, cut off or moved is found."""

import datetime
import json
import shutil

import pytest
from crashes import WHY, model, push

from registry.interface import RegistryError, Traffic
from registry.keys import Keys
from registry.local import LocalRegistry

LINES = 8  # four pushes, an intent and an outcome each


@pytest.fixture(params=["keyed", "plain"])
def registry(request, tmp_path):
    """A registry with four versions, its history with and without a key."""
    key = tmp_path / "audit.key"
    key.write_text("k" * 32 + "\n")
    keys = Keys(audit=key) if request.param == "keyed" else Keys()
    made = LocalRegistry(tmp_path / "registry", "student", keys)
    for number in range(1, 5):
        push(made, model(tmp_path / str(number), f"graph {number}"))
    return made


def record(registry):
    return registry.path(1).parent / "history.jsonl"


def anchor(registry):
    return record(registry).with_suffix(".head")


def rewrite(registry, change):
    lines = record(registry).read_bytes().splitlines(keepends=True)
    record(registry).write_bytes(b"".join(change(lines)))


def without_key(registry):
    return LocalRegistry(registry.root, registry.name, Keys())


def test_an_untouched_history_has_no_fault(registry):
    found = registry.audit()
    assert (found.entries, found.faults, found.unchained) == (LINES, (), 0)
    last = json.loads(record(registry).read_bytes().splitlines()[-1])
    assert (last["hash"], found.keyed) == (found.head, last["alg"] == "hmac-sha256")
    assert registry.audit(found.head).faults == ()
    assert json.loads(anchor(registry).read_bytes())["hash"] == found.head


def test_changes_keep_the_chain_and_every_earlier_head(registry):
    earlier = registry.audit().head
    registry.rollback(**WHY)
    registry.set_traffic(1, 5, **WHY)
    registry.gc(0, **WHY)
    assert registry.audit(earlier).faults == ()
    assert registry.audit().head != earlier


def test_looking_at_nothing_finds_nothing(tmp_path):
    found = LocalRegistry(tmp_path / "none", "student", Keys()).audit()
    assert (found.entries, found.head, found.faults) == (0, "", ())


@pytest.mark.parametrize("line", range(LINES))
def test_an_edit_is_found(registry, line):
    rewrite(registry, lambda lines: [*lines[:line], edited(lines[line]), *lines[line + 1 :]])
    (fault,) = registry.audit().faults
    assert fault.startswith(f"Line {line + 1} is not as it was written")


def edited(line):
    fields = json.loads(line)
    name = "reason" if "reason" in fields else "live"
    return json.dumps(fields | {name: 9}).encode() + b"\n"


@pytest.mark.parametrize("line", range(LINES - 1))
def test_a_deletion_is_found(registry, line):
    rewrite(registry, lambda lines: lines[:line] + lines[line + 1 :])
    assert f"Line {line + 1} does not follow" in registry.audit().faults[0]


@pytest.mark.parametrize("line", range(LINES - 1))
def test_a_reordering_is_found(registry, line):
    def swap(lines):
        lines[line : line + 2] = lines[line + 1], lines[line]
        return lines

    rewrite(registry, swap)
    assert f"Line {line + 1} does not follow" in registry.audit().faults[0]


@pytest.mark.parametrize("left", range(1, LINES))
def test_a_truncation_is_found_and_nothing_is_added_to_it(registry, left):
    rewrite(registry, lambda lines: lines[:left])
    assert "does not end where history.head says" in registry.audit().faults[0]
    before = record(registry).read_bytes()
    with pytest.raises(RegistryError, match=r"does not end where history\.head says"):
        registry.rollback(**WHY)
    assert record(registry).read_bytes() == before
    assert registry.traffic() == Traffic(4)


def test_an_insertion_is_found(registry):
    rewrite(registry, lambda lines: [*lines[:3], lines[1], *lines[3:]])
    assert "Line 4 does not follow" in registry.audit().faults[0]
    rewrite(registry, lambda lines: [*lines[:3], b'{"sequence": 9}\n', *lines[4:]])
    assert "Line 4 has no hash" in registry.audit().faults[0]
    rewrite(registry, lambda lines: [*lines[:3], b"oops\n", *lines[4:]])
    assert "Line 4 is no JSON object" in registry.audit().faults[0]


def test_a_history_cut_off_with_its_anchor_is_found_by_a_head_kept_elsewhere(registry):
    kept, old = registry.audit().head, anchor(registry).read_bytes()
    cut = record(registry).read_bytes()
    registry.rollback(**WHY)
    late = registry.audit().head
    record(registry).write_bytes(cut)
    anchor(registry).write_bytes(old)
    assert registry.audit().faults == ()  # both files are from the same moment
    assert registry.audit(kept).faults == ()
    (fault,) = registry.audit(late).faults
    assert f"no longer holds the entry {late}" in fault


def test_a_missing_anchor_is_found_and_never_forgotten(registry):
    anchor(registry).unlink()
    assert registry.audit().faults == (
        "history.head is missing: whether the end was cut is unknown.",
    )
    registry.rollback(**WHY)
    (fault,) = registry.audit().faults
    assert fault == f"When line {LINES + 1} was written, history.head was missing."


def test_a_forged_last_line_is_not_built_upon(registry):
    rewrite(registry, lambda lines: [*lines[:-1], edited(lines[-1])])
    with pytest.raises(RegistryError, match="last line .* is not as it was written"):
        registry.rollback(**WHY)
    assert registry.traffic() == Traffic(4)


def test_a_crash_between_line_and_anchor_is_no_fault(registry):
    old = anchor(registry).read_bytes()
    registry.rollback(**WHY)
    lines = record(registry).read_bytes().splitlines(keepends=True)
    record(registry).write_bytes(b"".join(lines[:-1]) + lines[-1][:20])  # a torn outcome, too
    anchor(registry).write_bytes(old)
    assert registry.audit().faults == ()
    registry.promote(1, **WHY)
    assert registry.audit().faults == ()
    assert [event.state for event in registry.history()] == ["done"] * 6


def test_a_history_of_before_there_were_hashes_is_kept_and_bound(registry, tmp_path):
    def bare(line):
        fields = json.loads(line)
        return json.dumps({k: v for k, v in fields.items() if k not in OWN}).encode() + b"\n"

    OWN = ("alg", "hash", "prev", "canary", "percent")
    rewrite(registry, lambda lines: map(bare, lines))
    anchor(registry).unlink()
    old = without_key(registry)
    found = old.audit()
    assert (found.entries, found.unchained, found.head, found.faults) == (LINES, LINES, "", ())
    assert old.traffic() == Traffic(4)
    registry.rollback(**WHY)
    found = registry.audit()
    assert (found.entries, found.unchained, found.faults) == (LINES + 2, LINES, ())
    rewrite(registry, lambda lines: [lines[0].replace(b"test", b"tset"), *lines[1:]])
    assert f"Line {LINES + 1} does not follow" in registry.audit().faults[0]


def test_a_key_once_used_is_needed_ever_after(tmp_path):
    key, other = tmp_path / "key", tmp_path / "other"
    key.write_text("k" * 32)
    other.write_text("o" * 32)
    root = tmp_path / "registry"
    plain = LocalRegistry(root, "student", Keys())
    push(plain, model(tmp_path / "1", "1"))
    keyed = LocalRegistry(root, "student", Keys(audit=key))
    (fault,) = keyed.audit().faults
    assert "No line has a key" in fault
    push(keyed, model(tmp_path / "2", "2"))
    found = keyed.audit()
    assert (found.keyed, found.faults) == (True, ())
    assert "none is set" in plain.audit().faults[0]
    with pytest.raises(RegistryError, match="kept with a key, and none is set"):
        plain.rollback(**WHY)
    wrong = LocalRegistry(root, "student", Keys(audit=other))
    assert "its hash does not match" in wrong.audit().faults[0]
    with pytest.raises(RegistryError, match="the key is another"):
        wrong.rollback(**WHY)
    assert plain.traffic() == Traffic(2)


def test_without_the_key_nobody_writes_a_history(tmp_path):
    """A whole history made anew without the key is found, though its own hashes agree."""
    key = tmp_path / "key"
    key.write_text("k" * 32)
    genuine = LocalRegistry(tmp_path / "registry", "student", Keys(audit=key))
    forged = LocalRegistry(tmp_path / "forged", "student", Keys())
    for registry in (genuine, forged):
        push(registry, model(tmp_path / f"m {registry.root.name}", "1"))
    for name in ("history.jsonl", "history.head"):
        shutil.copy(forged.path(1).parent / name, genuine.path(1).parent / name)
    assert any("No line has a key" in fault for fault in genuine.audit().faults)


def test_keys_never_appear_in_the_registry(tmp_path):
    key = tmp_path / "key"
    key.write_text("canary-of-a-secret-" * 2)
    registry = LocalRegistry(tmp_path / "registry", "student", Keys(key, key, key))
    push(registry, model(tmp_path / "1", "1"))
    kept = [path.read_bytes() for path in registry.root.rglob("*") if path.is_file()]
    assert not any(b"canary-of-a-secret" in content for content in kept)
    with pytest.raises(RegistryError) as refused:
        LocalRegistry(registry.root, "student", Keys(verify=tmp_path)).verify(1)
    assert "canary-of-a-secret" not in str(refused.value)


def test_who_answered_at_a_moment_is_in_the_history_alone(registry):
    registry.rollback(**WHY)
    registry.set_traffic(1, 5, **WHY)
    registry.promote(2, **WHY)
    shutil.rmtree(registry.root / "student" / "manifests")
    (registry.root / "models.config").unlink()
    times = [datetime.datetime.fromisoformat(event.time) for event in registry.history()]
    tick = datetime.timedelta(microseconds=1)
    assert registry.served_at(times[0] - tick) == Traffic(None)
    assert [registry.served_at(time) for time in times] == [
        Traffic(1),
        Traffic(2),
        Traffic(3),
        Traffic(4),
        Traffic(3),
        Traffic(3, 1, 5),
        Traffic(2),
    ]
    assert registry.served_at(times[5] - tick) == Traffic(3)
    with pytest.raises(RegistryError, match="time zone"):
        registry.served_at(datetime.datetime(2026, 1, 1))


def test_a_change_without_outcome_leaves_its_moment_open(registry):
    registry.rollback(**WHY)
    lines = record(registry).read_bytes().splitlines(keepends=True)
    rewrite(registry, lambda lines: lines[:-1])
    anchor(registry).write_text(json.dumps({"hash": json.loads(lines[-2])["hash"]}))
    began = datetime.datetime.fromisoformat(registry.history()[-1].time)
    with pytest.raises(RegistryError, match=r"Change 5 \(rollback of version 3 by tester"):
        registry.served_at(began)
    assert registry.served_at(began - datetime.timedelta(seconds=1)).live in (None, 1, 2, 3, 4)
    registry.promote(3, **WHY)  # live already: settles, and changes nothing
    assert registry.served_at(began) == Traffic(3)
