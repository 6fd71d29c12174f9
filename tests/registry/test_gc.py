"""Old versions go, what serves or may be gone back to stays; and what tells versions apart."""

import json

import pytest
from crashes import WHY, model, push

from registry.interface import RegistryError
from registry.keys import Keys
from registry.local import LocalRegistry


@pytest.fixture
def seven(tmp_path):
    """Versions 1 to 7: 4 is live, 2 the way back, 6 the canary."""
    registry = LocalRegistry(tmp_path / "registry", "student", Keys())
    for number in range(1, 8):
        registry.push(
            model(tmp_path / str(number), f"graph {number}"),
            metrics={"auc": number / 10, "by": {"site": [number]}},
            lineage={"run": f"r{number}", "data": "d"},
            make_live=number in (2, 4),
            **WHY,
        )
    registry.set_traffic(6, 10, **WHY)
    return registry


def numbers(registry):
    return [version.number for version in registry.versions()]


@pytest.mark.parametrize(
    ("keep", "left"),
    [(0, [2, 4, 6]), (1, [2, 4, 6, 7]), (3, [2, 4, 5, 6, 7]), (7, [*range(1, 8)]), (99, None)],
)
def test_gc_keeps_what_serves_the_way_back_and_the_newest(seven, keep, left):
    gone = tuple(n for n in range(1, 8) if left is not None and n not in left)
    assert seven.gc(keep, dry_run=True, **WHY) == gone
    assert numbers(seven) == [*range(1, 8)]
    assert seven.gc(keep, **WHY) == gone
    assert numbers(seven) == (left or [*range(1, 8)])
    assert seven.gc(keep, **WHY) == ()
    assert not any(seven.path(number).exists() for number in gone)
    assert seven.rollback(**WHY).number == 2


def test_gc_is_recorded_version_by_version(seven):
    seven.gc(3, reason="space", who="ann")
    events = seven.history()[-2:]
    assert [(e.action, e.version, e.reason, e.who) for e in events] == [
        ("gc", 1, "space", "ann"),
        ("gc", 3, "space", "ann"),
    ]
    assert all((e.live, e.canary, e.state) == (4, 6, "done") for e in events)
    assert seven.audit().faults == ()


def test_a_removed_version_leaves_its_manifest_and_its_number(seven, tmp_path):
    seven.gc(0, **WHY)
    kept = json.loads((seven.path(7).parent / "manifests" / "7.json").read_bytes())
    assert kept["lineage"] == {"run": "r7", "data": "d"}
    assert push(seven, tmp_path / "7").number == 8
    with pytest.raises(RegistryError, match=r"no version 7 \(versions: 2, 4, 6, 8\)"):
        seven.promote(7, **WHY)


def test_numbers_are_not_reused_even_without_the_history(seven, tmp_path):
    seven.gc(0, **WHY)
    for name in ("history.jsonl", "history.head"):
        (seven.path(7).parent / name).unlink()
    assert push(seven, model(tmp_path / "new", "new")).number == 8


def test_versions_that_people_labelled_stay(seven):
    file = seven.root / "models.config"
    labelled = '    version_labels { key: "study" value: 1 }\n  }\n}\n'
    file.write_text(file.read_text().removesuffix("  }\n}\n") + labelled)
    seven.set_traffic(None, 0, **WHY)  # writes the label's version among the loaded ones
    seven.gc(0, **WHY)
    assert numbers(seven) == [1, 2, 4]


def test_a_negative_number_is_refused(seven):
    with pytest.raises(RegistryError, match="received -1"):
        seven.gc(-1, **WHY)


def test_diff_tells_files_metrics_and_lineage(seven, tmp_path):
    source = model(tmp_path / "other", "graph 7")
    (source / "variables" / "variables.index").unlink()
    (source / "assets").mkdir()
    (source / "assets" / "words").write_text("")
    metrics, lineage = {"auc": 0.7, "loss": 1.0}, {"run": "r8", "data": "d"}
    seven.push(source, metrics=metrics, lineage=lineage, make_live=False, **WHY)
    found = seven.diff(7, 8)
    assert (found.added, found.removed) == (("assets/words",), ("variables/variables.index",))
    assert found.changed == ()
    assert found.metrics == {"by.site": ([7], None), "loss": (None, 1.0)}
    assert found.lineage == {"run": ("r7", "r8")}
    assert seven.diff(1, 2).changed == ("saved_model.pb", "variables/variables.index")
    assert seven.diff(8, 7).added == found.removed
    with pytest.raises(RegistryError, match="no version 9"):
        seven.diff(1, 9)


def test_a_dry_push_tells_the_version_and_writes_nothing(seven, tmp_path):
    source = model(tmp_path / "new", "new")
    told = {"metrics": {}, "lineage": {}, "dry_run": True} | WHY
    before = sorted(path for path in seven.root.rglob("*"))
    version = seven.push(source, **told)
    assert (version.number, version.already_present) == (8, False)
    again = seven.push(tmp_path / "3", **told)
    assert (again.number, again.already_present) == (3, True)
    absent = LocalRegistry(tmp_path / "absent", "student", Keys())
    assert absent.push(source, **told).number == 1
    assert not absent.root.exists()
    assert sorted(path for path in seven.root.rglob("*")) == before
    (seven.path(3) / "saved_model.pb").write_text("X")
    with pytest.raises(RegistryError, match="was changed"):
        seven.push(tmp_path / "3", **told)
