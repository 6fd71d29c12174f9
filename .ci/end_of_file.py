"""Ends each file given with exactly one newline; exits 1 when it had to change one."""

import sys
from pathlib import Path


def ends_wrongly(content: bytes) -> bool:
    """True when the last line is not ended, or blank lines follow it."""
    return bool(content) and content != content.rstrip(b"\r\n") + b"\n"


def main(files: list[str]) -> int:
    """Rewrites the files that need it and names them."""
    changed = 0
    for file in map(Path, files):
        content = file.read_bytes()
        if ends_wrongly(content):
            body = content.rstrip(b"\r\n")
            file.write_bytes(body + b"\n" if body else b"")
            print(f"Ended {file} with one newline.")
            changed = 1
    return changed


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
