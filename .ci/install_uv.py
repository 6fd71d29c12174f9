"""Installs uv into a private folder with whatever this Python has: `install_uv.py VERSION FOLDER`.

In turn: a virtual environment; pip alone (Debian without python3-venv); the wheel itself from the
index that uv.lock names (Debian without python3-pip). Runs on any Python 3.6 or later.
"""

import hashlib
import io
import os
import platform
import re
import shutil
import subprocess
import sys
import urllib.parse
import urllib.request
import zipfile

ROOT = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))


def by_venv(version, folder):
    """A virtual environment of its own: needs `venv` and `ensurepip`."""
    subprocess.check_call([sys.executable, "-m", "venv", folder])
    pip = [os.path.join(folder, "bin", "python"), "-m", "pip"]
    subprocess.check_call([*pip, "install", "--quiet", "uv==" + version])


def by_pip(version, folder):
    """A plain folder: needs `pip`."""
    pip = [sys.executable, "-m", "pip"]
    subprocess.check_call([*pip, "install", "--quiet", "--target", folder, "uv==" + version])


def by_wheel(version, folder):
    """One file out of the wheel: needs nothing but the standard library."""
    with open(os.path.join(ROOT, "uv.lock"), encoding="utf-8") as lock:
        index = re.search(r'registry = "([^"]+)"', lock.read()).group(1)
    page_address = index + "/uv/"
    page = read(page_address).decode()
    name = r"uv-%s-py3-none-manylinux_[^\"#]*%s[^\"#]*\.whl"
    pattern = r'href="([^"#]*%s)#sha256=([0-9a-f]{64})"' % (
        name % (re.escape(version), re.escape(platform.machine()))
    )
    found = re.search(pattern, page)
    if found is None:
        raise LookupError("no wheel of uv " + version + " for " + platform.machine())
    wheel = read(urllib.parse.urljoin(page_address, found.group(1)))
    if hashlib.sha256(wheel).hexdigest() != found.group(2):
        raise ValueError("the wheel of uv arrived damaged (its SHA-256 differs from the index's)")
    target = os.path.join(folder, "bin", "uv")
    os.makedirs(os.path.dirname(target))
    with zipfile.ZipFile(io.BytesIO(wheel)) as archive, open(target, "wb") as out:
        out.write(archive.read("uv-" + version + ".data/scripts/uv"))
    os.chmod(target, 0o755)  # noqa: S103 (a program, for all)


def read(address):
    """The bytes at an address."""
    with urllib.request.urlopen(address, timeout=180) as answer:  # noqa: S310 (uv.lock's index)
        return answer.read()


def main():
    """Tries the ways in turn; the first that leaves a working uv wins."""
    version, folder = sys.argv[1:]
    print("Installing uv " + version + " into " + folder + "/", flush=True)
    failures = []
    for way in (by_venv, by_pip, by_wheel):
        shutil.rmtree(folder, ignore_errors=True)
        try:
            way(version, folder)
            subprocess.check_call([os.path.join(folder, "bin", "uv"), "--version"])
            return
        except Exception as error:
            failures.append("  " + way.__name__ + ": " + str(error))
    sys.exit(
        "uv " + version + " could not be installed:\n" + "\n".join(failures) + "\n"
        "Connect to the network (or configure pip for your mirror), or install uv by hand, "
        "then repeat."
    )


if __name__ == "__main__":
    main()
