"""`cortexflow drift`, as typed, on a dataset of two spans."""

import json
import shutil

import pytest
from typer.testing import CliRunner

from cli.main import app
from ingest.phantom import PhantomSpec, render_subject
from ingest.releases import open_source
from ingest.spans import write_span


def typed(*words):
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, ["drift", *map(str, words)])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """24 people of a reference scanner, then 24 others of a bad one."""
    root = tmp_path_factory.mktemp("drift")
    for site in (0, 2):
        spec = PhantomSpec("standard", (6, 6, 6, 6), slices=2, site=site, seed=site)
        for number in range(len(spec)):
            subject = render_subject(spec, number)
            folder = root / "source" / subject.class_name
            folder.mkdir(parents=True, exist_ok=True)
            for index, data in enumerate(subject.encoded):
                (folder / f"{subject.id}site{site}_{index}.jpg").write_bytes(data)
        listing = open_source(root / "source", subject_regex=r"(subj\d+site\d)")
        write_span(listing, root / "data")
    return root / "data"


def test_the_newest_span_is_compared_by_default(dataset):
    result = typed(dataset)
    assert result.exit_code == 2, result.output
    assert "span-1: 24 people, 48 images  ·  span-2: 24 people, 48 images" in result.output
    rows = [line for line in result.output.splitlines() if line.startswith("●")]
    assert any("high_frequency_energy" in row for row in rows)
    assert all(len(line) <= 80 for line in result.output.splitlines()[:-1])
    assert result.output.splitlines()[-1].startswith(
        "refused: span-2 (24 people) against span-1 (24)"
    )


def test_json_has_everything(dataset):
    result = typed(dataset, "--json", "--current", "span-2")
    assert result.exit_code == 2
    answer = json.loads(result.output)
    assert (answer["reference"], answer["current"]) == ("span-1", "span-2")
    assert answer["outcome"] == "refused"
    by_name = {feature["name"]: feature for feature in answer["features"]}
    assert by_name["high_frequency_energy"]["drifted"]
    assert not by_name["label"]["drifted"]
    assert sum(by_name["entropy"]["current"]) == pytest.approx(1)


def test_too_few_people_exit_with_3(dataset):
    result = typed(dataset, "--reference", "train", "--current", "val")
    assert result.exit_code == 3
    assert "insufficient data" in result.output
    assert "not a finding of no drift" in result.output


def test_without_drift_it_exits_with_0(dataset, tmp_path):
    """Both spans are in train and in test, so these two are alike."""
    result = typed(dataset, "--reference", "train", "--current", "test", "--min-people", 4)
    assert result.exit_code == 0, result.output
    assert "no drift found" in result.output
    copy = tmp_path / "data"
    shutil.copytree(dataset, copy)
    info = json.loads((copy / "dataset.json").read_text())
    (copy / "dataset.json").write_text(json.dumps({**info, "spans": ["span-1"], "leaked": True}))
    first = typed(copy, "--min-people", 4)
    assert first.exit_code == 0, first.output
    assert first.output.startswith("LEAKED")
    assert "test (" in first.output.splitlines()[-1]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--reference", "tran"], "did you mean 'train'?"),
        (["--current", "span-1"], "there is none before it"),
        (["--reference", "train", "--current", "span-2"], "share images (span-2/train)"),
        (["--reference", "span-1/tset"], "no 'span-1/tset'"),
        (["--permutations", "99"], "permutations cannot show drift"),
    ],
)
def test_mistakes_are_named(dataset, words, message):
    result = typed(dataset, *words)
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.count("\n") == 1


def test_a_folder_that_is_no_dataset(tmp_path):
    result = typed(tmp_path)
    assert result.exit_code == 1
    assert "no imported dataset" in result.stderr
