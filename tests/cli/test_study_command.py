import json
import logging

import pytest
from typer.testing import CliRunner

from cli.study import app
from ingest.phantom import PhantomSpec, generate
from studies import fold
from studies.slices import StudyError


def run(*arguments):
    return CliRunner(env={"COLUMNS": "80"}).invoke(app, [str(argument) for argument in arguments])


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    spec = PhantomSpec("easy", (10, 6, 3, 1), slices=4, size=64, seed=1)
    return generate(spec, tmp_path_factory.mktemp("phantom"), workers=1) / "images"


def test_leak_of_a_folder_prints_the_table_and_leaves_a_report(images, tmp_path):
    result = run("leak", "--data", images, "--folds", "2", "--out", tmp_path)
    assert result.exit_code == 0, result.output
    assert "by slice" in result.stdout
    assert "leak check: by person: passed" in result.stdout
    assert "nearest neighbours" in result.stderr
    assert max(map(len, result.stdout.split("leak check")[0].splitlines())) <= 80
    assert json.loads((tmp_path / "leak.json").read_text())["people"] == 20
    assert (tmp_path / "report.md").is_file()


def test_a_pattern_without_data_is_misuse(tmp_path):
    result = run("leak", "--subject-regex", "(x)", "--workspace", tmp_path)
    assert result.exit_code == 2
    assert "goes with --data" in result.output


def test_too_small_a_phantom_is_misuse(tmp_path):
    assert run("leak", "--people", "5", "--workspace", tmp_path).exit_code == 2


def test_cv_says_what_it_would_do(images, tmp_path):
    result = run("cv", "--data", images, "--folds", "3", "--out", tmp_path / "cv", "--dry-run")
    assert result.exit_code == 0, result.output
    assert "20 people, 80 slices: 10 with VeryMildDemented" in result.stdout
    assert "3 of 3 folds to do" in result.stdout
    assert not (tmp_path / "cv").exists()


def test_cv_resumes_and_reports(images, tmp_path, monkeypatch):
    def answers(task, settings, folder):
        logging.getLogger("trainer.pace").info("pretrain 1/12")
        found = fold._without_networks(task)
        return {method: found.get(method, found["csf"])[task.test] for method in fold.METHODS}

    monkeypatch.setattr(fold, "measure", answers)
    given = ["cv", "--data", images, "--folds", "2", "--out", tmp_path]
    first = run(*given)
    assert first.exit_code == 0, first.output
    assert "the student reaches AUC" in first.stdout
    assert "pretrain 1/12" in first.stderr
    assert "2 of 2 folds: seed 0, fold 2 in" in first.stderr
    again = run(*given)
    assert "0 of 2 folds to do" in again.stdout
    assert again.stdout.splitlines()[1:] == first.stdout.splitlines()[1:]
    other = run(*given, "--size", "48")
    assert isinstance(other.exception, StudyError)


@pytest.mark.parametrize("command", ["leak", "cv"])
def test_help_shows_examples(command):
    assert f"cortexflow study {command}" in run(command, "--help").output
