"""What the trainer refuses, each with its own name so that callers can tell them apart."""

from schema.errors import CortexflowError


class TrainingDataError(CortexflowError):
    """The examples given cannot be trained on."""


class TrainingDiverged(CortexflowError):
    """The loss stopped being a number."""


class BundleError(CortexflowError):
    """A model's bundle is missing, damaged or of the wrong kind."""


class StageError(CortexflowError):
    """The settings of a stage do not fit its data or its base model."""


class ConversionError(CortexflowError):
    """A converted model does not give the answers of the model it came from."""
