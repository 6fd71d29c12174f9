"""The model card: every number with its interval, every checklist item with its place."""

import dataclasses
import html
import re

import pytest

from components.report import card, checklist
from components.report.evidence import Evidence, Override, Run
from evaluation.outcome import Outcome
from tests.components.run_report import gates
from tests.components.run_report.test_report_html import HOSTILE, Reader


@pytest.fixture(scope="module")
def text(evidence):
    return card.markdown(evidence)


def words(markdown: str) -> str:
    """Markdown without its escapes."""
    return html.unescape(re.sub(r"\\(.)", r"\1", markdown))


def test_sections_come_in_order(text):
    found = re.findall(r"^## \d+\. (.*)$", text, re.MULTILINE)
    assert found == list(card.NAMES.values())


def test_the_headline_stands_on_top_with_what_it_does_not_show(evidence, text):
    headline = evidence.decision.details["intervals"]["student"]["macro_auc"]
    top = words(text).split("## 2.")[0]
    assert "**Macro AUC {:.3f} [{:.3f}, {:.3f}] on 84 test people.**".format(*headline) in top
    details = evidence.decision.details | {
        "differences": {"student - total CSF": [0.013, -0.018, 0.043]}
    }
    decision = dataclasses.replace(evidence.decision, details=details)
    told = words(card.markdown(dataclasses.replace(evidence, decision=decision)))
    assert "- Not shown to be better than total CSF" in told.split("## 2.")[0]


def test_long_tables_hide_behind_their_caption(text):
    assert text.count("<details><summary>") == text.count("</details>") > 5
    for caption in ("CLAIM, 2024 update", "TRIPOD+AI (2024)", "Per slice", "Leak check:"):
        assert f"<details><summary>{caption}" in text


def test_phantoms_need_no_consent_and_real_images_do(evidence):
    real = dataclasses.replace(evidence, config={**evidence.config, "data": {"source": "folder"}})
    assert "no consent is needed" in card.markdown(evidence)
    assert "Age, sex" not in card.markdown(evidence)
    assert "no consent is needed" not in card.markdown(real)
    assert "Consent, approval and terms of use" in card.markdown(real)


def test_research_use_comes_first_and_stands_in_the_use(text):
    assert text.splitlines()[2] == "**Research use only, not for diagnosis.**"
    assert text.count("Research use only, not for diagnosis.") == 2


def test_numbers_have_their_intervals(evidence, text):
    of = evidence.decision.details["intervals"]["student"]["macro_auc"]
    told = f"{of[0]:.3f} [{of[1]:.3f}, {of[2]:.3f}]"
    assert told in words(text)
    assert "| live version |".casefold() in text.casefold()
    for name, value in evidence.lineage.items():
        assert f"| {name} | {value} |" in words(text)


def test_html_says_what_markdown_says(evidence, text):
    page = card.html(evidence)
    read = Reader(page)
    assert "<script" not in page
    assert not re.search("https?:", page)
    for line in words(text).splitlines():
        if line.startswith("| "):
            for cell in line.strip("| ").split(" | "):
                assert cell.strip() in read.words
    anchors = [attributes["href"][1:] for tag, attributes in read.tags if tag == "a"]
    assert set(anchors) <= set(read.ids)


def test_an_override_stays_on_the_card(make_evidence):
    refused = make_evidence(outcome=Outcome.REFUSED)
    override = Override("A. Lovelace", "the demonstration", "2026-02-19T08:00:00+00:00")
    found = dataclasses.replace(refused, override=override)
    assert "> # OVERRIDDEN" in card.markdown(found)
    assert "A. Lovelace did on 19 February 2026" in card.markdown(found)
    assert "OVERRIDDEN" not in card.markdown(refused)


def test_leaks_are_told_with_their_reason(evidence):
    found = dataclasses.replace(evidence, leakage=gates.leakage(24))
    assert "| Leak check | REFUSED | 24 people stand on both sides" in card.markdown(found)


def test_a_run_that_knows_nothing_has_a_card():
    told = words(card.markdown(Evidence(Run("r"))))
    assert "No data were imported." in told
    assert "No model was judged." in told
    assert "| Leak check | not run |" in told
    assert "Results: not reached" in told


@pytest.mark.parametrize(
    ("items", "number"), [(checklist.CLAIM, 44), (checklist.TRIPOD, 27)], ids=["claim", "tripod"]
)
def test_every_item_is_answered_somewhere(evidence, items, number):
    assert len(items) == number
    assert len(dict(items)) == number
    for topic, answer in checklist.answered(items, evidence, card.NAMES):
        assert topic
        assert answer
        assert "{" not in answer
        assert "not reached" not in answer


def test_limits_follow_from_the_run(make_evidence):
    made = words(card.markdown(make_evidence(subjects=(21, 2, 21, 21), slices=2)))
    assert "computed phantoms" in made
    assert "hippocampus" not in made
    assert "ModerateDemented is not evaluable (2 people)" in made
    evidence = make_evidence()
    real = dataclasses.replace(evidence, config={**evidence.config, "data": {"source": "folder"}})
    assert "hippocampus is nearly absent" in words(card.markdown(real))


def test_hostile_names_are_text(evidence):
    name = f"{HOSTILE}|**x**\n# y [a](b)"
    found = dataclasses.replace(
        evidence,
        run=Run(id=name, command=name),
        dataset=dataclasses.replace(evidence.dataset, name=name),
        override=Override(name, name),
    )
    text = card.markdown(found)
    assert "<script" not in text
    assert "\n# y" not in text
    assert "](b)" not in text.replace("\\](b)", "")
    assert "<script" not in card.html(found)


def test_both_files_are_renamed_into_place(evidence, tmp_path):
    paths = card.write(evidence, tmp_path / "run")
    assert sorted(path.name for path in (tmp_path / "run").iterdir()) == sorted(
        path.name for path in paths
    )
    assert paths[0].read_text(encoding="utf-8") == card.markdown(evidence)
