"""What one process on one machine cannot run is refused before anything is made."""

import pytest
from typer.testing import CliRunner

from cli.main import app


@pytest.mark.parametrize("command", [("run", "quickstart"), ("run", "mri", "--data", "phantom")])
def test_several_workers_are_refused_before_data_are_made(tmp_path, command):
    answer = CliRunner().invoke(
        app,
        [*command, "--set", "execution.strategy=multi_worker", "--workspace", str(tmp_path)],
        prog_name="cortexflow",
    )
    assert answer.exit_code == 1, answer.output
    told = " ".join(answer.stderr.split())
    assert "multi_worker (received for pretrain, teacher, student)" in told
    assert "TFJob or custom job whose processes call the trainer with TF_CONFIG" in told
    assert "docs/training.md" in told
    assert not list(tmp_path.iterdir())
