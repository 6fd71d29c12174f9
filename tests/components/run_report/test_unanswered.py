"""Which images get no answer: the same numbers in report and card, or why there are none."""

import dataclasses

import pytest

from components.report import card, html, refusals
from components.report.evidence import Evidence, Run
from tests.components.run_report import gates
from tests.components.run_report.test_card import words
from tests.components.run_report.test_report_html import HOSTILE, Reader


def with_gate(gate, **others) -> Evidence:
    """Evidence of a run that trained a student, and of nothing that is drawn."""
    return Evidence(Run("r"), histories={"student": ()}, input_gate=gate, **others)


def section(evidence: Evidence) -> str:
    told = words(card.markdown(evidence))
    return told.split("Which images get no answer\n")[1].split("\n## ")[0]


def test_kinds_that_pass_come_first_and_are_drawn():
    found = refusals.panel(with_gate(gates.input_gate(0.56)))
    assert [name for name, _ in found.rows[:2]] == ["mirrored", "tilted by 15°"]
    names = [rung.entry.name for rung in found.plot.rungs]
    assert names == ["As they were", "Mirrored", "Tilted by 15°", "2 other kinds"]
    assert [rung.x for rung in found.plot.rungs] == [0.35, 0.0, 56.0, 100.0]
    assert found.plot.zero == 0.5
    assert found.always == "noise, upside-down"


def test_a_kind_that_never_passes_is_not_drawn_apart():
    found = refusals.panel(with_gate(gates.input_gate(1.0)))
    assert "Tilted by 15°" not in [rung.entry.name for rung in found.plot.rungs]
    assert "tilted by 15°" in found.always


def test_the_page_shows_shares_in_percent():
    page = html.render(with_gate(gates.input_gate(0.56)))
    told = Reader(page).words
    assert '<section id="refusals">' in page
    assert "AUROC 0.780, FPR95 41.8% 56.0%" in told
    assert "Scale 0% to 100%. Dashed: 0.5%" in told
    assert "Never passed: noise, upside-down." in told


def test_page_and_card_say_the_same():
    evidence = with_gate(gates.input_gate())
    page, told = Reader(html.render(evidence)).words, section(evidence)
    assert "| tilted by 15° | 56.0% | 0.780 | 41.8% |" in told
    for said in (
        "Fitted on 960 images of 120 training people, to refuse 0.5% of unseen people's images",
        "cross-fitting over training people found 0.3%",
        "1 of 288 validation images (0.3%), of people it was not fitted on",
        "Tells from upright: upside-down, turned by 90° (97.0% caught), mirrored along one",
        "turned by 180°, turned by 270°, mirrored, mirrored along the other diagonal.",
        *refusals.LIMITS,
        "144 validation images, spoilt on purpose. AUROC: chance",
    ):
        assert said in page
        assert said in told


def test_a_split_that_leaks_is_not_called_unseen(evidence):
    dataset = dataclasses.replace(evidence.dataset, leaked=True)
    told = section(with_gate(gates.input_gate(), dataset=dataset))
    assert "some of people it was fitted on" in told
    assert "not fitted on" not in told


def test_a_gate_that_was_not_measured_says_what_it_was_fitted_on():
    gate = dataclasses.replace(
        gates.input_gate(), families=(), validation_images=0, false_rejection=None, turns={}
    )
    page, told = Reader(html.render(with_gate(gate))).words, section(with_gate(gate))
    for text in (page, told):
        assert "Fitted on 960 images" in text
        assert "Tells from upright: no way of turning or mirroring." in text
        assert "validation images (" not in text
        assert "AUROC" not in text


@pytest.mark.parametrize(
    ("evidence", "why"),
    [(with_gate(None), refusals.UNGATED), (Evidence(Run("r")), "No model was exported.")],
    ids=["no gate", "no model"],
)
def test_a_model_without_a_gate_says_so(evidence, why):
    assert refusals.panel(evidence) is None
    assert why in Reader(html.render(evidence)).words
    assert section(evidence).strip() == why


def test_hostile_kinds_are_text():
    family = gates.WrongImages(HOSTILE, 1, 0.5, 0.5, 0.5)
    gate = dataclasses.replace(gates.input_gate(), families=(family,), turns={HOSTILE: 1.0})
    page = html.render(with_gate(gate))
    assert "<script" not in page
    assert "<script" not in card.markdown(with_gate(gate))
    assert 'alert("x")' in Reader(page).words
