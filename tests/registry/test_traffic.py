"""Who answers: live, canary and its share, moved together by one rename."""

import pytest
from crashes import WHY, model, push

from registry import serving_config
from registry.interface import RegistryError, Traffic, VerificationError
from registry.local import LocalRegistry


@pytest.fixture
def four(tmp_path):
    """A registry with versions 1 to 4; 3 is live, 4 was never."""
    registry = LocalRegistry(tmp_path / "registry", "student")
    for number in (1, 2, 3, 4):
        registry.push(
            model(tmp_path / str(number), f"graph {number}"),
            metrics={},
            lineage={},
            make_live=number < 4,
            **WHY,
        )
    return registry


def entry(registry):
    (found,) = serving_config.parse((registry.root / "models.config").read_text())
    return found


def test_a_canary_and_its_share_travel_in_the_pointer(four):
    assert four.traffic() == Traffic(3)
    assert four.set_traffic(4, 20, **WHY) == Traffic(3, 4, 20) == four.traffic()
    assert four.canary().number == 4
    assert entry(four).labels == {"live": 3, "canary": 4, "traffic-20": 4}
    assert entry(four).versions == (2, 3, 4)
    four.set_traffic(4, 0, **WHY)
    assert entry(four).labels == {"live": 3, "canary": 4, "traffic-0": 4}
    assert four.set_traffic(None, 0, **WHY) == Traffic(3)
    assert entry(four).labels == {"live": 3}
    assert four.canary() is None


def test_setting_the_same_traffic_again_changes_nothing(four):
    four.set_traffic(4, 20, **WHY)
    before = four.history()
    four.set_traffic(4, 20, **WHY)
    assert four.history() == before
    four.set_traffic(None, 0, **WHY)
    ended = four.history()
    four.set_traffic(None, 0, **WHY)
    assert four.history() == ended


def test_history_tells_the_canary(four):
    four.set_traffic(4, 20, reason="try", who="ann")
    four.set_traffic(None, 0, reason="errors", who="server")
    began, ended = four.history()[-2:]
    assert (began.action, began.version, began.live) == ("set_traffic", 4, 3)
    assert (began.canary, began.percent, began.state) == (4, 20, "done")
    assert (ended.version, ended.canary, ended.percent, ended.who) == (4, None, 0, "server")


@pytest.mark.parametrize(
    ("change", "live"),
    [
        (lambda r: r.promote(4, **WHY), 4),
        (lambda r: r.promote(1, **WHY), 1),
        (lambda r: r.rollback(**WHY), 2),
        (lambda r: r.rollback(to=1, **WHY), 1),
        (lambda r: r.rollback(to=3, **WHY), 3),
    ],
    ids=["promote the canary", "promote another", "rollback", "rollback to", "rollback to live"],
)
def test_another_live_version_ends_the_canary(four, change, live):
    four.set_traffic(4, 20, **WHY)
    change(four)
    assert four.traffic() == Traffic(live)
    assert four.history()[-1].canary is None


def test_promoting_the_live_version_keeps_its_canary(four):
    four.set_traffic(4, 20, **WHY)
    four.promote(3, **WHY)
    assert four.traffic() == Traffic(3, 4, 20)


def test_the_way_back_is_loaded_and_what_was_bad_is_not(four):
    # TF Serving answers requests without a label with the newest version that is loaded.
    assert entry(four).versions == (2, 3)
    four.rollback(**WHY)
    assert entry(four).versions == (1, 2)
    four.rollback(**WHY)
    assert entry(four).versions == (1,)
    four.promote(4, **WHY)
    assert entry(four).versions == (1, 4)
    four.promote(1, **WHY)
    assert (entry(four).versions, four.previous().number) == ((1, 4), 4)


@pytest.mark.parametrize(
    ("canary", "percent", "said"),
    [
        (4, -1, "0 to 100"),
        (4, 101, "0 to 100"),
        (3, 10, "live already"),
        (9, 10, r"no version 9 \(versions: 1, 2, 3, 4\)"),
    ],
)
@pytest.mark.parametrize("dry_run", [False, True])
def test_impossible_traffic_is_refused(four, canary, percent, said, dry_run):
    with pytest.raises(RegistryError, match=said):
        four.set_traffic(canary, percent, dry_run=dry_run, **WHY)
    assert four.traffic() == Traffic(3)


def test_a_canary_needs_something_live(tmp_path):
    registry = LocalRegistry(tmp_path / "registry", "student")
    source = model(tmp_path / "model", "graph")
    registry.push(source, metrics={}, lineage={}, make_live=False, **WHY)
    with pytest.raises(RegistryError, match="no live version"):
        registry.set_traffic(1, 10, **WHY)


def test_a_damaged_canary_gets_no_traffic(four):
    (four.path(4) / "saved_model.pb").write_text("graph X")
    with pytest.raises(VerificationError, match="was changed"):
        four.set_traffic(4, 10, **WHY)
    assert four.traffic() == Traffic(3)


def test_dry_run_verifies_and_changes_nothing(four):
    before = (four.root / "models.config").read_bytes(), four.history()
    assert four.set_traffic(4, 10, dry_run=True, **WHY) == Traffic(3, 4, 10)
    assert ((four.root / "models.config").read_bytes(), four.history()) == before


def test_labels_of_people_are_kept_and_stay_loaded(four):
    file = four.root / "models.config"
    labelled = '    version_labels { key: "study" value: 1 }\n  }\n}\n'
    file.write_text(file.read_text().removesuffix("  }\n}\n") + labelled)
    four.set_traffic(4, 5, **WHY)
    assert entry(four).labels == {"live": 3, "canary": 4, "traffic-5": 4, "study": 1}
    assert entry(four).versions == (1, 2, 3, 4)


def test_a_push_that_goes_live_ends_the_canary(four, tmp_path):
    four.set_traffic(4, 20, **WHY)
    push(four, model(tmp_path / "five", "graph 5"))
    assert four.traffic() == Traffic(5)


@pytest.mark.parametrize(
    ("labels", "said"),
    [
        ({"live": 3, "traffic-5": 4}, "without a canary"),
        ({"canary": 4}, "beside live None"),
        ({"live": 4, "canary": 4}, "beside live 4"),
        ({"live": 3, "canary": 4, "traffic-5": 4, "traffic-6": 4}, "two shares"),
        ({"live": 3, "canary": 4, "traffic-101": 4}, "traffic-0 to traffic-100"),
        ({"live": 3, "canary": 4, "traffic-05": 4}, "traffic-0 to traffic-100"),
        ({"live": 3, "canary": 4, "traffic-5": 3}, "not the canary"),
    ],
)
def test_labels_that_contradict_each_other_are_refused(labels, said):
    config = serving_config.ModelConfig("student", "/models", (3, 4), labels)
    with pytest.raises(RegistryError, match=said):
        serving_config.traffic(config)


def test_a_canary_without_a_share_gets_none():
    config = serving_config.ModelConfig("student", "/models", (3, 4), {"live": 3, "canary": 4})
    assert serving_config.traffic(config) == Traffic(3, 4, 0)
