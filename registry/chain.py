"""A log of JSON lines, each bound to the one before by a hash, its end anchored in a second file.

A line holds its predecessor's hash (`prev`) and its own (`hash`) over its canonical JSON: SHA-256,
or HMAC-SHA-256 when a key is set, which nobody without the key can compute (the construction of
Schneier and Kelsey, "Secure audit logs to support computer forensics", 1999, §2, without its
evolving keys). What no chain shows, that its end was cut off, the anchor shows; and since whoever
can write here can write both, `audit(head)` takes a hash that was kept elsewhere.

Lines without hashes, which earlier releases wrote, stay as they are at the start: the first hashed
line is bound to all bytes before it.
"""

import hashlib
import hmac
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from registry import keys
from registry.documents import Document
from registry.interface import Audit, RegistryError

PLAIN = "sha256"
KEYED = "hmac-sha256"
OWN_FIELDS = ("alg", "anchor", "hash", "prev")

_PURPOSE = b"cortexflow audit 1\n"


class Log:
    """The lines of one document. Changing it needs a lock that is held by the caller."""

    def __init__(self, document: Document, anchor: Document, key_file: Path | None):
        """Reads and writes nothing yet.

        Args:
            document: the log; need not exist.
            anchor: holds the hash of the last line.
            key_file: secret that keys the hashes; None hashes without a key.
        """
        self.where = document.where
        self._document = document
        self._anchor = anchor
        self._key_file = key_file

    def lines(self) -> list[bytes]:
        """All whole lines; a torn last one (a crash while writing) is left out."""
        return self._content().split(b"\n")[:-1]

    def append(self, fields: Mapping[str, Any]) -> None:
        """Adds one line, then anchors it. A crash between the two is no fault.

        Raises:
            RegistryError: the log does not end where the anchor says, its last line is not as it
                was written, or it is keyed and the key is not set.
        """
        content = self._content()
        lines = content.split(b"\n")[:-1]
        line = dict(fields) | self._tail(content, lines)
        line["alg"] = PLAIN if self._key_file is None else KEYED
        line["hash"] = self._hash(line)
        self._document.append(_canonical(line))
        self._set_anchor(line["hash"])

    def mend(self) -> None:
        """Settles a crash while writing: cuts a torn last line off, anchors one that is whole."""
        content = self._content()
        whole = content.rfind(b"\n") + 1
        if whole != len(content):
            self._document.cut(whole)
        hashes = _hashes(self.lines()[-2:])
        if hashes and self._anchored() == (hashes[0] if len(hashes) > 1 else None):
            self._set_anchor(hashes[-1])

    def audit(self, head: str | None = None) -> Audit:
        """Looks for edits, deletions, truncation and reordering; changes nothing.

        Args:
            head: hash that an earlier audit gave: it must still be among the lines.
        """
        faults: list[str] = []
        lines = self.lines()
        expected = hashlib.sha256()  # over the lines without hashes
        hashes: list[str] = []
        unchained, keyed, missing_key = 0, False, False
        for number, line in enumerate(lines, start=1):
            fields = _parsed(line)
            if fields is None:
                faults.append(f"Line {number} is no JSON object.")
                continue
            if "hash" not in fields:
                if hashes:
                    faults.append(f"Line {number} has no hash: it was put in by hand.")
                else:
                    unchained += 1
                    expected.update(line + b"\n")
                continue
            before = hashes[-1] if hashes else expected.hexdigest()
            if fields.get("prev") != before:
                what = "the line before it" if number > 1 else "the start"
                faults.append(
                    f"Line {number} does not follow {what}: a line was edited, removed, put in or "
                    "moved."
                )
            if fields.get("alg") == KEYED and self._key_file is None:
                missing_key = True
            elif not self._genuine(fields):
                faults.append(f"Line {number} is not as it was written: its hash does not match.")
            if keyed and fields.get("alg") != KEYED:
                faults.append(f"Line {number} is without a key, and lines before it have one.")
            if "anchor" in fields:
                faults.append(f"When line {number} was written, {self._anchor.name} was missing.")
            keyed = keyed or fields.get("alg") == KEYED
            hashes.append(str(fields["hash"]))
        faults += self._end_faults(hashes, head)
        if missing_key:
            faults.append(f"The hashes have a key, and none is set: name its file in {keys.AUDIT}.")
        if self._key_file is not None and lines and not keyed:
            faults.append(
                "No line has a key, though one is set: if the key is new, the next change uses it."
            )
        return Audit(
            entries=len(lines),
            head=hashes[-1] if hashes else "",
            keyed=keyed,
            faults=tuple(faults),
            unchained=unchained,
        )

    def _end_faults(self, hashes: list[str], head: str | None) -> list[str]:
        """What the anchor and a hash kept elsewhere say about the log's end."""
        faults = []
        anchored = self._anchored()
        if anchored is None and len(hashes) > 1:
            faults.append(f"{self._anchor.name} is missing: whether the end was cut is unknown.")
        elif anchored is not None and anchored not in hashes[-2:]:
            faults.append(
                f"The log does not end where {self._anchor.name} says: lines at its end were "
                "removed, or it was exchanged."
            )
        if head is not None and head not in hashes:
            faults.append(
                f"The log no longer holds the entry {head}: it was cut off before it or rewritten."
            )
        return faults

    def _tail(self, content: bytes, lines: list[bytes]) -> dict[str, str]:
        """What binds a new line to the log; proves that the log's end is as it was left."""
        hashes, last = _hashes(lines[-2:]), _parsed(lines[-1]) or {} if lines else {}
        anchored = self._anchored()
        if anchored is not None and anchored not in hashes:
            raise RegistryError(
                f"{self.where} does not end where {self._anchor.name} says, so nothing is added to "
                "it. Look with `cortexflow audit verify` and restore it. If it was restored on "
                f"purpose, remove {self._anchor.where}: the log will say for ever that it was "
                "missing."
            )
        if not hashes:
            return {"prev": hashlib.sha256(content).hexdigest()}
        if last.get("alg") == KEYED and self._key_file is None:
            raise RegistryError(
                f"{self.where} is kept with a key, and none is set. Name its file in {keys.AUDIT}."
            )
        if "hash" not in last or not self._genuine(last):
            raise RegistryError(
                f"The last line of {self.where} is not as it was written, or the key is another. "
                "Look with `cortexflow audit verify` and restore the file."
            )
        bound = {"prev": hashes[-1]}
        return bound if anchored or len(hashes) == 1 else bound | {"anchor": "missing"}

    def _genuine(self, fields: Mapping[str, Any]) -> bool:
        if fields.get("alg") not in (PLAIN, KEYED):
            return False
        try:
            return hmac.compare_digest(self._hash(fields), str(fields["hash"]))
        except TypeError:  # not ASCII
            return False

    def _hash(self, fields: Mapping[str, Any]) -> str:
        """Hash of a line's fields, other than `hash`, by the algorithm that `alg` names."""
        content = _PURPOSE + _canonical({k: v for k, v in fields.items() if k != "hash"})
        if fields["alg"] == PLAIN:
            return hashlib.sha256(content).hexdigest()
        assert self._key_file is not None
        return hmac.digest(keys.secret(self._key_file), content, "sha256").hex()

    def _set_anchor(self, head: str) -> None:
        self._anchor.write(_canonical({"hash": head}) + b"\n")

    def _anchored(self) -> str | None:
        """The hash that the anchor holds, None where there is no anchor."""
        content = self._anchor.read()
        if content is None:
            return None
        return str((_parsed(content) or {}).get("hash", "damaged"))

    def _content(self) -> bytes:
        return self._document.read() or b""


def _canonical(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, sort_keys=True, separators=(", ", ": ")).encode()


def _hashes(lines: Iterable[bytes]) -> list[str]:
    found = [_parsed(line) or {} for line in lines]
    return [str(fields["hash"]) for fields in found if "hash" in fields]


def _parsed(line: bytes) -> dict[str, Any] | None:
    try:
        fields = json.loads(line)
    except ValueError:
        return None
    return fields if isinstance(fields, dict) else None
