"""The command `cortexflow ingest`: what it prints and what it refuses."""

import sys

import pytest
from typer.testing import CliRunner

from cli.ingest import app
from ingest.datasets import read_dataset
from ingest.spans import QuarantineError

REGEX = ["--subject-regex", r"([ab]\d+)_"]


def invoke(*arguments):
    return CliRunner().invoke(app, [str(argument) for argument in arguments])


def test_images_prints_what_became_of_them(noise, tmp_path):
    source = noise(tmp_path / "x", people=10)
    (source / "a/a00_slice00.png").write_bytes(b"")
    result = invoke("images", source, tmp_path / "out", *REGEX, "--val", 0.2, "--test", 0.2)
    assert result.exit_code == 0, result.output
    assert "Names give 20 subject ids to 60 of 60 images" in result.output
    assert "quarantined: 1× empty" in result.output
    assert str(tmp_path / "out" / "span-1") in result.output.replace("\n", "")
    lines = [line.split() for line in result.output.splitlines() if line.strip()]
    rows = {first: rest for first, *rest in lines}
    assert rows["b"] == ["18", "(6)", "6", "(2)", "6", "(2)"]
    shown = invoke("show", tmp_path / "out")
    assert shown.exit_code == 0
    assert shown.output.strip() == result.output.strip()


def test_dry_run_writes_nothing(noise, tmp_path):
    result = invoke("images", noise(tmp_path / "x"), tmp_path / "out", *REGEX, "--dry-run")
    assert result.exit_code == 0
    assert "Nothing was written" in result.output
    assert not (tmp_path / "out").exists()


def test_tfrecords(shared, tmp_path):
    source = shared / "data" / "seed_tfrecords"
    result = invoke("tfrecords", source, tmp_path / "out")
    assert result.exit_code == 0
    assert read_dataset(tmp_path / "out").info.importer == "tfrecords"
    assert "Slice-level" in result.output


def test_too_much_damage_is_an_error(noise, tmp_path):
    source = noise(tmp_path / "x")
    for file in (source / "a").iterdir():
        file.write_bytes(b"")
    result = invoke("images", source, tmp_path / "out", *REGEX)
    assert result.exit_code == 1
    assert isinstance(result.exception, QuarantineError)
    assert "12 of 24 files" in str(result.exception)


def test_a_leaked_dataset_says_so(layouts, tmp_path):
    source, _ = layouts("tumour")
    result = invoke("images", source, tmp_path / "out", "--reproduce-shipped-split")
    assert result.exit_code == 0
    assert "LEAKED" in result.output


@pytest.mark.parametrize("command", ["images", "tfrecords", "show"])
def test_help_has_an_example(command):
    result = invoke(command, "--help")
    assert result.exit_code == 0
    assert f"cortexflow ingest {command}" in result.output


def test_the_command_imports_nothing_heavy():
    import subprocess

    heavy = "{'apache_beam', 'scipy', 'numpy'}"
    code = f"import sys, cli.ingest; print(sorted({heavy} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_the_help_of_tfrecords_says_when_the_shipped_split_is_kept():
    words = " ".join(invoke("tfrecords", "--help").output.replace("│", " ").split())
    assert "Records with subject ids are split anew, by person" in words
    assert "Without ids, train and test of the file names are kept" in words
