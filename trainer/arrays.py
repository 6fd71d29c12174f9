"""Arrays from outside: an `.npz` file's content, read within bounds and without pickle.

What a file claims is believed only where the bytes beside the claim bear it out, so a file of a few
kilobytes cannot ask for gigabytes.
"""

import io
import math
import zipfile
import zlib
from typing import Any

import numpy as np
from numpy.typing import NDArray


def unpack(content: bytes, max_bytes: int) -> dict[str, NDArray[Any]]:
    """All arrays of an `.npz` file, read-only.

    Args:
        content: the file, as `numpy.savez` or `savez_compressed` write it.
        max_bytes: the most it may hold, packed and unpacked.

    Raises:
        ValueError: it is larger, damaged, or holds something else than plain arrays.
    """
    if len(content) > max_bytes:
        raise ValueError(f"it has more than {max_bytes >> 20} MiB")
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            if sum(member.file_size for member in archive.infolist()) > max_bytes:
                raise ValueError(f"it unpacks to more than {max_bytes >> 20} MiB")
            return {
                member.filename.removesuffix(".npy"): _array(archive.read(member))
                for member in archive.infolist()
            }
    # A RuntimeError is what zipfile makes of encryption, and of compression that it does not know.
    except (OSError, EOFError, RuntimeError, zipfile.BadZipFile, zlib.error) as error:
        raise ValueError(str(error)) from error


def _array(content: bytes) -> NDArray[Any]:
    file = io.BytesIO(content)
    version = np.lib.format.read_magic(file)
    if version != (1, 0):
        raise ValueError(f"an array of format {version}, wanted (1, 0)")
    shape, by_column, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype.hasobject:
        raise ValueError("it holds pickled Python objects")
    data = content[file.tell() :]
    if math.prod(shape) * dtype.itemsize != len(data):
        raise ValueError(f"an array of shape {shape} with {len(data)} bytes")
    return np.frombuffer(data, dtype).reshape(shape, order="F" if by_column else "C")
