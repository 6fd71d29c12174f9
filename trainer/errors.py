"""What the trainer refuses, each with its own name so that callers can tell them apart."""

from schema.errors import CortexflowError


class TrainingDataError(CortexflowError):
    """The examples given cannot be trained on."""


class TrainingDiverged(CortexflowError):
    """The loss stopped being a number."""


class RepresentationCollapsed(CortexflowError):
    """An encoder gives every image the same features."""


class BundleError(CortexflowError):
    """A model's bundle is missing, damaged or of the wrong kind."""


class StageError(CortexflowError):
    """The settings of a stage do not fit its data or its base model."""


class ConversionError(CortexflowError):
    """A converted model does not give the answers of the model it came from."""


class StateError(CortexflowError):
    """A training's resumable state can not be written, read or agreed on."""


# 128 + 15, what the shell and Kubernetes report of a process that SIGTERM ended. It tells whoever
# restarts workers that the work was taken away, not wrong: under `restartPolicy: ExitCode`
# Kubeflow's training operator retries it, by its first list of codes (130, 137, 143) as by its
# present rule (128 and above), while 1 is a permanent error.
PREEMPTED_EXIT_CODE = 143


class Preempted(CortexflowError, SystemExit):
    """The training was asked to stop, has kept its state, and can be resumed.

    Also a `SystemExit`: a worker that is started by somebody else's program ends with the right
    code although nobody there knows this error.
    """

    exit_code = PREEMPTED_EXIT_CODE

    def __init__(self, message: str):
        super().__init__(message)
        self.code = self.exit_code


class WorkerLost(Preempted):
    """Another worker of the training is gone; started again, all go on from the last state."""
