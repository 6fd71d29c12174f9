"""An imported dataset, copied to where every node of a cluster can read it."""

import hashlib
import shutil
from pathlib import Path

from pipeline.backends.interface import BackendError
from schema import places
from schema.errors import CortexflowError

# Written last, so that a copy that was cut off is not taken for a dataset.
COMPLETE = "COMPLETE"
_BLOCK = 1 << 20


def content(dataset: Path) -> str:
    """Hash of the records and of who is in which split: equal data, equal name, on any machine.

    Returns:
        16 hexadecimal digits.
    """
    digest = hashlib.sha256()
    for path in [dataset / "splits.json", *sorted(dataset.glob("span-*/*/data-*"))]:
        digest.update(f"{path.relative_to(dataset)}\0".encode())
        with path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    return digest.hexdigest()[:16]


def address(dataset: Path, name: str, root: str) -> str:
    """Where a dataset belongs below a pipeline root."""
    return f"{root.rstrip('/')}/datasets/{name}-{content(dataset)}"


def place(dataset: Path, target: str) -> bool:
    """Copies a dataset to `target`, unless it lies there already.

    Returns:
        Whether it was copied.

    Raises:
        BackendError: it cannot be written there.
    """
    failures: tuple[type[Exception], ...] = (OSError, CortexflowError)
    try:
        if not places.is_remote(target):  # a folder that the nodes mount; spares TensorFlow
            marker = Path(target) / COMPLETE
            if marker.is_file():
                return False
            shutil.copytree(dataset, target, dirs_exist_ok=True)
            marker.touch()
            return True
        import tensorflow as tf

        failures = (tf.errors.OpError, *failures)
        if tf.io.gfile.exists(f"{target}/{COMPLETE}"):
            return False
        places.copy(str(dataset), target)
        with tf.io.gfile.GFile(f"{target}/{COMPLETE}", "w") as file:
            file.write("complete\n")
    except failures as error:
        raise BackendError(
            f"The dataset could not be copied to {target}: {error}. Check that the pipeline root "
            "is right and that you may write there (docs/running-on-clusters.md, Credentials)."
        ) from error
    return True
