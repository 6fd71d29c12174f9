"""A LiteRT version is served by a process that never loads TensorFlow."""

import json
import subprocess
import sys
from pathlib import Path

from tiny_models import IMAGES

ROOT = Path(__file__).resolve().parents[3]

PROGRAM = """
import asyncio, json, pathlib, sys
from serving.config import ServerSettings
from serving.engine import ServingEngine
from serving.interface import PredictRequest

async def session():
    engine = ServingEngine(ServerSettings(registry=sys.argv[1]))
    await engine.start()
    image = pathlib.Path(sys.argv[2]).read_bytes()
    answer = await engine.predict(PredictRequest("student", [image], None, None, "r"))
    await engine.stop()
    status = pathlib.Path("/proc/self/status").read_text()
    [peak] = [line.split()[1] for line in status.splitlines() if line.startswith("VmHWM")]
    heavy = {"tensorflow", "keras", "scipy", "tfx", "apache_beam", "matplotlib"}
    return {
        "version": answer.version,
        "sum": float(answer.outputs["probabilities"].sum()),
        "heavy": sorted(heavy & set(sys.modules)),
        "mebibytes": int(peak) / 1024,
    }

print(json.dumps(asyncio.run(session())))
"""


def test_litert_is_served_without_tensorflow(registry, tmp_path):
    image = tmp_path / "image.png"
    image.write_bytes(IMAGES[0])
    answer = subprocess.run(
        [sys.executable, "-c", PROGRAM, str(registry.root), str(image)],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    found = json.loads(answer.stdout.splitlines()[-1])
    assert found["version"] == 2
    assert abs(found["sum"] - 1) < 0.02
    assert found["heavy"] == []
    assert found["mebibytes"] < 150
