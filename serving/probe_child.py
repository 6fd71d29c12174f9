"""The questions that a model is asked in a process of its own; `serving.probe` starts it.

What it answers goes, a JSON object a line, to the pipe that its standard output was; whatever else
writes there, or a model's operations would, ends up among the errors.
"""

import ctypes
import json
import os
import resource
import signal
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ingest.records import encode_example
from registry import manifest
from schema.errors import CortexflowError
from schema.features import IMAGE
from serving import allowlist, preprocessing
from trainer import golden, input_gate

SAME = 1e-6  # of two signatures of one graph
GATE_TOLERANCE = 1e-3  # relative, of its scores on another machine
_MOST_FILES = 256  # open at once
_NEW_NETWORK, _NEW_USER = 0x40000000, 0x10000000  # CLONE_NEWNET, CLONE_NEWUSER of sched.h
_NO_NEW_PRIVILEGES, _DIE_WITH_PARENT = 38, 1  # PR_SET_… of linux/prctl.h


class Refusal(CortexflowError):
    """An answer that is a reason to refuse the model."""


class Trial:
    """One model and what has been read of it so far."""

    def __init__(self, folder: Path, memory_bytes: int, threads: int):
        self.folder = folder
        self.memory_bytes = memory_bytes
        self.threads = threads
        self.digest = ""
        self.classes: list[str] = []
        self.size = self.channels = 0
        self.golden = golden.Golden((), {})

    def files(self) -> str:
        """Nothing but the files of an export, all of them plain."""
        _refuse(allowlist.file_problems(self.folder))
        files = manifest.inventory(self.folder)
        self.digest = manifest.content_digest(files)
        return f"{len(files)} files, {sum(file.size for file in files) / 1e6:.1f} MB"

    def operations(self) -> str:
        """Nothing that an export of ours would not ask for."""
        _refuse(allowlist.graph_problems(allowlist.read(self.folder / allowlist.GRAPH)))
        for kind, path in self.lite_files().items():
            problems = allowlist.lite_problems(allowlist.read(path))
            _refuse([f"model.{kind}.tflite: {problem}" for problem in problems])
        return "all are those of our own exports"

    def lite_files(self) -> dict[str, Path]:
        """Kind → LiteRT file, of those that there are."""
        paths = {kind: self.folder / allowlist.LITE.format(kind) for kind in allowlist.KINDS}
        return {kind: path for kind, path in paths.items() if path.is_file()}

    def description(self) -> str:
        """`serving.json` and the golden batch, read and held against each other."""
        try:
            told = json.loads(allowlist.read(self.folder / "serving.json"))
            self.classes = [str(name) for name in told["classes"]]
            self.size = int(told["input"]["image_size"])
            self.channels = int(told["input"]["channels"])
            sound = told["format"] == 1 and 0 < self.size <= 4096 and self.channels in (1, 3)
        except FileNotFoundError:
            raise Refusal(
                "serving.json is missing: export the model with the present code"
            ) from None
        except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise Refusal(
                f"serving.json cannot be read ({type(error).__name__}: {error})"
            ) from error
        self.golden = golden.read(self.folder / golden.FILE)
        answers = self.golden.answers
        if not sound or answers[golden.SAVED_MODEL].shape[1] != len(set(self.classes)):
            raise Refusal("serving.json does not describe the model that answered at export")
        kept, asked = set(self.lite_files()), set(answers) - {golden.SAVED_MODEL}
        if kept != asked:
            raise Refusal(
                f"the golden batch has answers of LiteRT files {sorted(asked)}, "
                f"the model has files {sorted(kept)}"
            )
        if broken := [name for name, each in answers.items() if not np.isfinite(each).all()]:
            raise Refusal(f"at export the model answered with NaN or infinity ({broken[0]})")
        return f"{len(self.classes)} classes, {len(self.golden.images)} golden images"

    def input_gate(self) -> str:
        """The gate scores the golden images as at export, and refuses what shows nothing."""
        path, wanted = self.folder / input_gate.FILE, self.golden.gate
        if path.is_file() != (wanted is not None):
            raise Refusal(
                "the model has a gate and the golden batch no scores of it, or vice versa"
            )
        if wanted is None:
            return "none: the model answers for any image"
        scores = golden.gate_scores(path, [*self.golden.images, golden.blank()])
        apart = np.abs(scores[:-1] / np.where(wanted == 0, 1, wanted) - 1)
        if not np.isfinite(wanted).all() or not (apart <= GATE_TOLERANCE).all():
            raise Refusal("it scores the golden images otherwise than at export")
        if scores[-1] <= 1:
            raise Refusal("it lets a black picture through")
        return f"refuses {int((scores > 1).sum())} of {len(scores)} made-up pictures"

    def runtimes(self) -> str:
        """The runtimes, loaded; from here on nothing may be written and memory is counted."""
        import tensorflow as tf

        tf.config.threading.set_intra_op_parallelism_threads(self.threads)
        tf.config.threading.set_inter_op_parallelism_threads(1)
        from ai_edge_litert import interpreter  # noqa: F401

        pages = int(Path("/proc/self/statm").read_text().split()[0])
        _limit(resource.RLIMIT_AS, pages * resource.getpagesize() + self.memory_bytes)
        _limit(resource.RLIMIT_FSIZE, 0)
        return f"TensorFlow {tf.__version__}"

    def saved_model(self) -> str:
        """Both signatures answer what was answered at export."""
        import tensorflow as tf

        loaded = tf.saved_model.load(str(self.folder))
        signatures = loaded.signatures
        images = list(self.golden.images)
        by_image = signatures["predict_images"](images=tf.constant(images))
        examples = [encode_example({IMAGE: image}) for image in images]
        by_example = signatures["serving_default"](examples=tf.constant(examples))
        first, second = (each["probabilities"].numpy() for each in (by_image, by_example))
        told = _compared(first, self.golden, golden.SAVED_MODEL)
        if not np.allclose(first, second, rtol=0, atol=SAME):
            raise Refusal("predict_images and serving_default give different answers")
        names = [name.decode() for name in loaded.class_names.numpy().tolist()]
        if names != self.classes:
            raise Refusal(f"the model's classes are {names}, those of serving.json {self.classes}")
        return f"SavedModel {told}"

    def lite(self) -> str:
        """Each LiteRT file answers what was answered at export, on images prepared as served."""
        inputs = [
            preprocessing.preprocess(preprocessing.decode(image, self.channels), self.size)
            for image in self.golden.images
        ]
        told = [
            f"{kind} {_compared(_interpreted(path, inputs), self.golden, kind)}"
            for kind, path in self.lite_files().items()
        ]
        return "; ".join(told) or "no such files"

    def steps(self) -> Mapping[str, Callable[[], str]]:
        """The questions in order; those that run nothing of the model come first."""
        return {
            "files": self.files,
            "operations": self.operations,
            "description": self.description,
            "input gate": self.input_gate,
            "runtimes": self.runtimes,
            "SavedModel": self.saved_model,
            "LiteRT": self.lite,
        }


def _interpreted(path: Path, inputs: list[np.ndarray]) -> np.ndarray:
    """float32[N, C]: what a LiteRT file says of images, one at a time."""
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=allowlist.read(path), num_threads=1)
    interpreter.allocate_tensors()
    [source], [target] = interpreter.get_input_details(), interpreter.get_output_details()
    answers = []
    for image in inputs:
        interpreter.set_tensor(source["index"], image[None])
        interpreter.invoke()
        answers.append(interpreter.get_tensor(target["index"])[0])
    return np.stack(answers)


def _compared(received: np.ndarray, wanted: golden.Golden, name: str) -> str:
    """How far answers are from those at export.

    Raises:
        Refusal: too far.
    """
    expected, most = wanted.answers[name], golden.TOLERANCES[name]
    if received.shape != expected.shape or received.dtype != expected.dtype:
        raise Refusal(
            f"{name}: the model answers with {received.dtype}{list(received.shape)}, "
            f"at export it was {expected.dtype}{list(expected.shape)}"
        )
    if not np.isfinite(received).all():
        raise Refusal(f"{name}: the model answers with NaN or infinity")
    apart = float(np.abs(received - expected).max())
    if apart > most:
        raise Refusal(
            f"{name}: answers to the golden batch differ from those at export by {apart:.3g}, "
            f"at most {most:.3g} is rounding"
        )
    return f"within {apart:.2g} of export"


def _refuse(problems: list[str]) -> None:
    if problems:
        raise Refusal("; ".join(problems))


def _limit(what: int, most: int) -> None:
    """Lowers a limit for good; one that is lower already stays."""
    _, hard = resource.getrlimit(what)
    most = most if hard == resource.RLIM_INFINITY else min(most, hard)
    resource.setrlimit(what, (most, most))


def _shut_in(cpu_seconds: int) -> bool:
    """Takes away what no model needs; returns whether that includes the network."""
    _limit(resource.RLIMIT_CPU, cpu_seconds)
    _limit(resource.RLIMIT_CORE, 0)
    _limit(resource.RLIMIT_NOFILE, _MOST_FILES)
    system = ctypes.CDLL(None, use_errno=True)
    system.prctl(_DIE_WITH_PARENT, signal.SIGKILL, 0, 0, 0)
    system.prctl(_NO_NEW_PRIVILEGES, 1, 0, 0, 0)
    return any(system.unshare(flags) == 0 for flags in (_NEW_NETWORK, _NEW_USER | _NEW_NETWORK))


def _most_memory() -> int:
    """The most bytes of memory held at once (getrusage's figure begins with the parent's)."""
    status = Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) * 1024


def _reason(error: Exception, memory_bytes: int) -> str:
    """An exception as a reason, in one printable line."""
    if isinstance(error, CortexflowError):
        return str(error)
    kind = type(error).__name__
    if kind in {"MemoryError", "ResourceExhaustedError"}:
        return (
            f"it needs more than {memory_bytes / (1 << 30):g} GiB of memory "
            "(serving.memory_bytes sets this)"
        )
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    told = " ".join(lines).removeprefix("Graph execution error: ")[:300]
    return f"{kind}: {''.join(letter for letter in told if letter.isprintable())}"


def main() -> None:
    """Asks, answers and exits; arguments as `serving.probe.probe` gives them."""
    _, folder, memory, cpu_seconds, threads = sys.argv[1:]
    pipe = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)

    def tell(**message: Any) -> None:
        pipe.write(json.dumps(message) + "\n")

    tell(isolated=_shut_in(int(cpu_seconds)))
    trial = Trial(Path(folder), int(memory), int(threads))
    for name, step in trial.steps().items():
        tell(begin=name)
        try:
            detail, passed = step(), True
        except Exception as error:
            detail, passed = _reason(error, trial.memory_bytes), False
        tell(name=name, passed=passed, detail=detail)
        if not passed:
            break
    tell(digest=trial.digest, memory_bytes=_most_memory())
    os._exit(0)  # threads of a model end here, and so does what it would do at exit
