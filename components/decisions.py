"""Decisions of gates as files of TFX artifacts: `decision.json`."""

import os

from tfx.dsl.io import fileio

from evaluation.outcome import Decision, from_json, to_json

FILE = "decision.json"


def write_decision(decision: Decision, folder: str) -> None:
    """Writes `decision.json` into a local or remote folder."""
    with fileio.open(os.path.join(folder, FILE), "w") as file:
        file.write(to_json(decision))


def read_decision(folder: str) -> Decision:
    """Reads what `write_decision` wrote."""
    with fileio.open(os.path.join(folder, FILE), "r") as file:
        return from_json(file.read())
