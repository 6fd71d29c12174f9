"""Converting a checkpoint computes, and a training on replicas must still get its devices."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

TESTS = Path(__file__).resolve().parents[1]
PATHS = (TESTS.parent, TESTS / "trainer", TESTS / "trainer" / "checkpoints")

# Run in a process of its own, in which TensorFlow has not computed yet.
TRAINING = """
import sys
from pathlib import Path

from pipeline import presets
from pipeline.config import with_overrides
from pipeline.inputs import pinned_checkpoint
from pipeline.workspace import Workspace

folder, checkpoint, train, val = Path(sys.argv[1]), *sys.argv[2:]
config = with_overrides(presets.load("quickstart"), [
    "pretrain=null", f"checkpoint={checkpoint}", "input.image_size=32", "teacher.epochs=1",
    "teacher.batch_size=8", "execution.strategy=mirrored", "execution.replicas=2",
    "teacher.optimizer.warmup_epochs=0",
])
model, _ = pinned_checkpoint(config, Workspace.at(folder / "workspace"))
from blob_dataset import fn_args
from trainer.run_fn import run_fn

run_fn(fn_args(folder, config.teacher, [train], [val], f"{model}/Format-Serving"))
"""


@pytest.mark.slow
def test_a_converted_checkpoint_is_fine_tuned_on_two_replicas(tmp_path, monkeypatch):
    for path in PATHS[1:]:
        monkeypatch.syspath_prepend(path)
    from blob_dataset import blob_split
    from public_model import NARROW, PublicModel, save_checkpoint

    checkpoint = save_checkpoint(PublicModel(NARROW), tmp_path / "ckpt-7")
    train, val = blob_split(tmp_path, "train", 9), blob_split(tmp_path, "val", 6)
    result = subprocess.run(
        [sys.executable, "-c", TRAINING, tmp_path, checkpoint, train, val],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(map(str, PATHS))},
    )
    assert result.returncode == 0, result.stderr[-3000:]
    assert (tmp_path / "Format-Serving" / "saved_model.pb").is_file()
    assert (tmp_path / "bundle" / "weights.npz").is_file()
