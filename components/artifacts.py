"""Artifact types that TFX does not have.

A compiled pipeline finds each class by its TYPE_NAME, through `components.__getattr__`.
"""

from tfx.types.artifact import Artifact


class DataDecision(Artifact):
    """Whether the data may be trained on: `decision.json`."""

    TYPE_NAME = "components.DataDecision"


class ModelDecision(Artifact):
    """Whether a model may go live, with every check and number behind it: `decision.json`."""

    TYPE_NAME = "components.ModelDecision"


class Predictions(Artifact):
    """Per-image probabilities of one or more models on each split: `predictions.npz`."""

    TYPE_NAME = "components.Predictions"


class ControlDecision(Artifact):
    """Whether labels that mean nothing teach nothing, as they must: `decision.json`."""

    TYPE_NAME = "components.ControlDecision"


class ServingDecision(Artifact):
    """Whether a server may load a model: `decision.json`."""

    TYPE_NAME = "components.ServingDecision"
