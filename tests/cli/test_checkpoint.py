"""`cortexflow checkpoint` as it is typed."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from cli.main import app
from trainer.checkpoints import aliases, conversion

sys.path.append(str(Path(__file__).parents[1] / "trainer" / "checkpoints"))
ALIAS = "simclrv2/finetuned_100pct/r50_1x_sk0"


def run(*arguments: str | Path):
    return CliRunner(env={"COLUMNS": "80"}).invoke(
        app, ["checkpoint", *map(str, arguments)], prog_name="cortexflow"
    )


def test_the_published_table_fits_a_terminal():
    lines = run("list").stdout.splitlines()
    row = next(line for line in lines if line.strip().startswith("r152_3x_sk1"))
    assert row.split() == [
        "r152_3x_sk1", "152", "3×", "yes", "795", "M", "79.8", "74.9", "80.1", "83.1", "80.5",
    ]  # fmt: skip


def test_every_alias_is_listed_and_completed():
    from cli.checkpoint import complete_checkpoint

    assert run("list", "--names").stdout.split() == aliases.names()
    assert complete_checkpoint("simclrv2/supervised/r50_1x") == [
        "simclrv2/supervised/r50_1x_sk0", "simclrv2/supervised/r50_1x_sk1",
    ]  # fmt: skip


def test_what_was_not_fetched_is_shown_as_published(tmp_path):
    answer = run("show", ALIAS, "--json", "--workspace", tmp_path)
    facts = json.loads(answer.stdout)
    assert facts["imagenet_top1_percent"] == 76.3
    assert facts["url"] == f"gs://simclr-checkpoints-tf2/{ALIAS}/saved_model"
    told = run("show", ALIAS, "--workspace", tmp_path).stdout
    assert f"cortexflow checkpoint fetch {ALIAS}" in told
    rows = [line.split(maxsplit=1) for line in told.splitlines()]
    for row in (["depth", "50"], ["width", "1×"], ["SK", "no"], ["params", "24 M"]):
        assert row in rows
    assert not set("{}'") & set(told)


def test_an_address_that_was_not_fetched_is_said_to_be_so(tmp_path):
    for url in ("s3://mine/model", "https://models.example/model.tar.gz", "gs://mine/model"):
        answer = run("show", url, "--workspace", tmp_path)
        assert answer.exit_code == 0, answer.output
        assert f"Not fetched yet: {url}" in answer.stdout
    facts = json.loads(run("show", url, "--json", "--workspace", tmp_path).stdout)
    assert facts == {"url": url, "fetched": False}


def test_what_was_fetched_from_anywhere_is_shown(tmp_path):
    from public_model import NARROW, PublicModel, save_checkpoint

    save_checkpoint(PublicModel(NARROW), tmp_path / "source" / "ckpt-7")
    url = f"file://{tmp_path}/source"
    work = ("--workspace", tmp_path / "work")
    assert run("fetch", url, "--image-size", 32, *work).exit_code == 0
    answer = run("show", url, *work)
    assert "TensorFlow 2 checkpoint" in answer.stdout
    assert "to fetch it anew, remove" in answer.stderr


def test_a_typo_gets_a_suggestion(tmp_path):
    answer = run("fetch", "simclrv2/finetuned/r50_1x_sk0", "--workspace", tmp_path)
    assert answer.exit_code == 1
    assert "Did you mean" in answer.stderr
    assert len(answer.stderr.splitlines()) == 1


@pytest.mark.parametrize("typed", ["simclrv2/finetuned/r50_1x_sk0", "absent/folder"])
def test_a_typo_is_told_before_tensorflow_is_loaded(tmp_path, typed):
    code = (
        "import sys; from cli.main import app\n"
        f"arguments = ['checkpoint', 'fetch', {typed!r}, '--workspace', {str(tmp_path)!r}]\n"
        "try: app(arguments, prog_name='cortexflow')\n"
        "finally: print('tensorflow' in sys.modules)"
    )
    answer = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False
    )
    assert answer.returncode == 1
    assert answer.stdout.split() == ["False"], answer.stderr
    assert "cortexflow checkpoint list" in answer.stderr


@pytest.mark.parametrize("size", [0, 8, conversion.SMALLEST_IMAGE - 1])
def test_an_image_that_is_too_small_is_refused_before_anything_is_fetched(tmp_path, size):
    answer = run("fetch", ALIAS, "--image-size", size, "--workspace", tmp_path / "work")
    assert answer.exit_code == 2
    assert "--image-size" in answer.output
    assert str(conversion.SMALLEST_IMAGE) in answer.output
    assert not (tmp_path / "work").exists()


def test_what_could_not_be_verified_is_said(tmp_path):
    from public_model import NARROW, PublicModel, save_checkpoint

    prefix = save_checkpoint(PublicModel(NARROW), tmp_path / "ckpt-7")
    answer = run("fetch", prefix, "--image-size", 32, "--workspace", tmp_path / "work")
    assert answer.exit_code == 0, answer.output
    assert "Warning: not verified: a checkpoint without a model" in answer.stderr


def test_two_channels_are_no_image(tmp_path):
    answer = run("fetch", ALIAS, "--channels", "2", "--workspace", tmp_path)
    assert answer.exit_code == 2
    assert "--channels" in answer.output


@pytest.mark.parametrize("command", ["list", "show", "fetch"])
def test_help_has_an_example(command):
    assert f"cortexflow checkpoint {command}" in run(command, "--help").stdout


@pytest.mark.slow
def test_an_alias_is_fetched_from_its_bucket_and_converted(tmp_path, monkeypatch):
    """The whole way, with a bucket on this machine and a ResNet-50 of full width in it."""
    from bucket import Bucket, served
    from public_model import PublicModel, Variant

    folder = PublicModel(Variant(50, classes=1000), give_head=False).save(tmp_path / "saved_model")
    files = {
        f"{ALIAS}/saved_model/{path.relative_to(folder)}": path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }
    with served(Bucket(files, cut_after=50_000_000)) as bucket:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", bucket.address)
        answer = run("fetch", ALIAS, "--image-size", "48", "--workspace", tmp_path / "work")
    assert answer.exit_code == 0, answer.output
    model = Path(answer.stdout.strip())
    assert json.loads((model / "transfer.json").read_text())["verified"]
    assert f"--set checkpoint={model} --set input.image_size=48" in answer.stderr
    shown = run("show", ALIAS, "--workspace", tmp_path / "work").stdout
    assert "verified on a probe batch" in shown
