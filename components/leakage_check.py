"""LeakageCheck: does one person stand on both sides of the split? Asked before any training.

The questions and their answers are those of `evaluation.leakage`. The node publishes its decision
with the offending pairs and a picture of them; `StopOnBadData` ends the run.
"""

import json
import os
from typing import Any

from tfx.dsl.component.experimental.annotations import InputArtifact, OutputArtifact, Parameter
from tfx.dsl.component.experimental.decorators import component
from tfx.dsl.io import fileio
from tfx.types import artifact_utils
from tfx.types.standard_artifacts import Examples

from components.artifacts import DataDecision
from components.decisions import write_decision
from components.records import decoded
from evaluation import leakage, leakage_picture
from evaluation.config import LeakageSettings

PAIRS, PICTURE = "pairs.json", "pairs.png"


def write_leaks(leaks: leakage.Leaks, splits: dict[str, Any], folder: str) -> None:
    """Writes `decision.json`, `pairs.json` and, where there are pairs, `pairs.png`."""
    write_decision(leaks.decision, folder)
    with fileio.open(os.path.join(folder, PAIRS), "w") as file:
        file.write(json.dumps(leakage.to_json(leaks.pairs), indent=2, allow_nan=False))
    if leaks.pairs:
        with fileio.open(os.path.join(folder, PICTURE), "wb") as file:
            file.write(leakage_picture.draw(leaks.pairs, splits, leaks.total))


@component
def LeakageCheck(  # noqa: N802 (a TFX node is named as a class)
    examples: InputArtifact[Examples],
    decision: OutputArtifact[DataDecision],
    splits: Parameter[str],
    settings: Parameter[str],
    code: Parameter[str],
):
    """TFX node. `splits`: names joined by commas, all that any stage trains or is judged on.

    `settings` is a LeakageSettings as JSON; `code` the hash of this code, for the cache.
    """
    asked = LeakageSettings.model_validate_json(settings)
    images = {
        split: decoded(
            os.path.join(artifact_utils.get_split_uri([examples], split), "*"), asked.image_size
        )
        for split in splits.split(",")
    }
    write_leaks(leakage.check(images, asked), images, decision.uri)
