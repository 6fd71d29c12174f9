"""The bootstrap's last resort: a wheel taken apart by the standard library."""

import hashlib
import importlib.util
import io
import os
import platform
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
VERSION = "1.2.3"
WHEEL = f"uv-{VERSION}-py3-none-manylinux_2_17_{platform.machine()}.whl"
PAGE = "https://packages.example/simple/uv/"


def wheel() -> bytes:
    """A wheel whose `uv` is a shell script that knows its version."""
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        archive.writestr(f"uv-{VERSION}.data/scripts/uv", f"#!/bin/sh\necho uv {VERSION}\n")
    return content.getvalue()


@pytest.fixture
def install_uv(tmp_path, monkeypatch):
    """The script as a module, beside a lock that names an index which exists in a dict only."""
    spec = importlib.util.spec_from_file_location("install_uv", ROOT / ".ci/install_uv.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    lock = f'source = {{ registry = "{PAGE.removesuffix("/uv/")}" }}\n'
    (tmp_path / "uv.lock").write_text(lock)
    monkeypatch.setattr(module, "ROOT", str(tmp_path))
    return module


def index(content: bytes, digest: str):
    """An index of one wheel: address → bytes."""
    others = "".join(
        f'<a href="../../{name}#sha256={"0" * 64}">{name}</a>'
        for name in (
            WHEEL.replace(VERSION, "1.2.30"),
            WHEEL.replace(platform.machine(), "other"),
            WHEEL.replace("manylinux", "musllinux"),
        )
    )
    page = f'{others}<a href="../../files/{WHEEL}#sha256={digest}">{WHEEL}</a>'
    return {PAGE: page.encode(), f"https://packages.example/files/{WHEEL}": content}


def test_the_wheel_becomes_a_program(install_uv, monkeypatch, tmp_path):
    content = wheel()
    monkeypatch.setattr(install_uv, "read", index(content, hashlib.sha256(content).hexdigest()).get)
    install_uv.by_wheel(VERSION, str(tmp_path / "tools"))
    program = tmp_path / "tools/bin/uv"
    assert subprocess.check_output([program, "--version"], text=True) == f"uv {VERSION}\n"


def test_a_damaged_wheel_is_refused(install_uv, monkeypatch, tmp_path):
    monkeypatch.setattr(install_uv, "read", index(wheel()[:-1], "a" * 64).get)
    with pytest.raises(ValueError, match="arrived damaged"):
        install_uv.by_wheel(VERSION, str(tmp_path / "tools"))
    assert not (tmp_path / "tools").exists()


def test_a_missing_version_is_named(install_uv, monkeypatch, tmp_path):
    monkeypatch.setattr(install_uv, "read", index(wheel(), "a" * 64).get)
    with pytest.raises(LookupError, match=r"no wheel of uv 9\.9\.9"):
        install_uv.by_wheel("9.9.9", str(tmp_path / "tools"))


def test_the_ways_are_tried_in_turn(install_uv, monkeypatch, tmp_path):
    content = wheel()
    monkeypatch.setattr(install_uv, "read", index(content, hashlib.sha256(content).hexdigest()).get)
    tried = []

    def absent(name):
        def way(version, folder):
            os.makedirs(folder)
            tried.append(name)
            raise ImportError(name)

        way.__name__ = name
        return way

    monkeypatch.setattr(install_uv, "by_venv", absent("venv"))
    monkeypatch.setattr(install_uv, "by_pip", absent("pip"))
    monkeypatch.setattr(sys, "argv", ["install_uv.py", VERSION, str(tmp_path / "tools")])
    install_uv.main()
    assert tried == ["venv", "pip"]
    assert os.access(tmp_path / "tools/bin/uv", os.X_OK)


def test_when_no_way_works_each_reason_is_told(install_uv, monkeypatch, tmp_path):
    def offline(*_):
        raise OSError("network is unreachable")

    for way in ("by_venv", "by_pip", "read"):
        monkeypatch.setattr(install_uv, way, offline)
    monkeypatch.setattr(sys, "argv", ["install_uv.py", VERSION, str(tmp_path / "tools")])
    with pytest.raises(SystemExit) as stopped:
        install_uv.main()
    message = str(stopped.value)
    assert message.count("network is unreachable") == 3
    assert "Connect to the network" in message


@pytest.mark.parametrize(
    ("before", "after", "code"),
    [
        ("a\n", "a\n", 0),
        ("a", "a\n", 1),
        ("a\n\n\n", "a\n", 1),
        ("a\r\n", "a\n", 1),
        ("\n\n", "", 1),
        ("", "", 0),
    ],
)
def test_files_end_with_one_newline(tmp_path, before, after, code):
    file = tmp_path / "page.md"
    file.write_bytes(before.encode())
    answer = subprocess.run([sys.executable, ROOT / ".ci/end_of_file.py", file], check=False)
    assert (answer.returncode, file.read_bytes().decode()) == (code, after)
