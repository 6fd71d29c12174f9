"""`cortexflow leakage` on datasets as `ingest` lays them out."""

import json

import numpy as np
import pytest
from PIL import Image
from typer.testing import CliRunner

from cli.leakage import app
from ingest.atomic import write_json
from ingest.datasets import DatasetInfo, ImportReport, Tally
from ingest.records import encode_example, write_records
from ingest.splits import SplitSettings, SplitsFile
from schema.features import ALZHEIMER_CLASSES
from tests.components.leaking_records import example
from tests.evaluation.leaking import by_person, by_slice, phantom


def run(*arguments):
    return CliRunner(env={"COLUMNS": "200"}).invoke(app, [str(word) for word in arguments])


@pytest.fixture(scope="module")
def dataset(tmp_path_factory):
    """Writes a dataset of two spans, whose images are split as told."""
    people = phantom(people=12, slices=32)

    def write(splitter):
        folder = tmp_path_factory.mktemp("dataset")
        splits = splitter(people)
        owners = {
            str(name): split for split, each in splits.items() for name in np.unique(each.subjects)
        }
        SplitsFile.of(SplitSettings(), owners).write(folder / "splits.json")
        info = DatasetInfo(
            name="twelve",
            classes=ALZHEIMER_CLASSES,
            severity=None,
            level="subject",
            channels=1,
            importer="folders",
            source="phantom",
            leaked=False,
            spans=("span-1", "span-2"),
        )
        write_json(folder / "dataset.json", info.model_dump())
        for half, span in enumerate(info.spans):
            counts = {}
            for split, images in splits.items():
                rows = np.arange(half, len(images), 2)
                place = folder / span / split / "data-00000-of-00001.tfrecord.gz"
                place.parent.mkdir(parents=True)
                write_records(place, [encode_example(example(images, row)) for row in rows])
                counts[split] = {"all": Tally(images=len(rows), subjects=0)}
            ImportReport(
                span=span,
                fingerprint="0",
                layout="folders",
                source="phantom",
                evidence=(),
                received=0,
                counts=counts,
            ).write(folder / span / "report.json")
        return folder

    return {"clean": write(by_person), "leaking": write(by_slice)}


def test_a_clean_dataset_passes_and_no_picture_is_drawn(dataset, tmp_path):
    answer = run(dataset["clean"], "--picture", tmp_path / "pairs.png")
    assert answer.exit_code == 0, answer.output
    lines = answer.stdout.splitlines()
    assert lines[-1] == "passed"
    assert any(line.split()[:3] == ["train", "192", "6"] for line in lines)
    assert list(tmp_path.iterdir()) == []


def test_a_leaking_dataset_is_refused_on_the_last_line_with_a_picture(dataset, tmp_path):
    answer = run(dataset["leaking"], "--picture", tmp_path / "pairs.png")
    assert answer.exit_code == 2
    assert answer.stdout.splitlines()[-1].startswith("refused: 12 people stand on both sides: subj")
    assert "train subj" in answer.stdout
    assert [place.name for place in tmp_path.iterdir()] == ["pairs.png"]
    assert Image.open(tmp_path / "pairs.png").format == "PNG"


def test_json_is_all_that_is_printed(dataset):
    answer = run(dataset["leaking"], "--json", "--min-correlation", "0.999")
    assert answer.exit_code == 2
    decision = json.loads(answer.stdout)
    assert decision["outcome"] == "refused"
    assert decision["details"]["threshold"] == 0.999
    assert decision["details"]["found"]["correlation"] == 0
    assert decision["details"]["found"]["ids"] > 0


def test_another_size_is_an_error_of_use(dataset):
    answer = run(dataset["clean"], "--image-size", "100")
    assert answer.exit_code == 2
    assert "64 or 128" in answer.output
