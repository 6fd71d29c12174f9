"""What reading somebody's weights refuses, each with its own name."""

from schema.errors import CortexflowError


class CheckpointError(CortexflowError):
    """A checkpoint is missing, damaged, or holds something else than was asked for."""


class UnknownCheckpoint(CheckpointError):
    """No checkpoint is published under this name."""


class DownloadError(CheckpointError):
    """A checkpoint could not be fetched, or what came is not what was stored."""


class VerificationError(CheckpointError):
    """The transferred network does not answer as the original does."""
