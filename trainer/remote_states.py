"""Resumable states behind an address: worked on in a folder, kept as one object each.

The disk of a machine that may be taken away is no place for what outlives it. A state is one file,
named after its place and the digest of its bytes: it is copied up whole under that name, so that
half an upload, whoever shows it, is no state.
"""

import logging
import re
from dataclasses import dataclass
from pathlib import Path

from schema import places

LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class RemoteFolder:
    """A folder behind an address, and the one on this machine that stands for it.

    Attributes:
        address: where states are kept, `gs://…`.
        local: where they are written and read; may be lost at any time.
    """

    address: str
    local: Path

    def fetch(self, names: re.Pattern[str]) -> None:
        """Copies here what is kept, where a name matches, and is not here yet.

        Raises:
            OSError: the address cannot be read.
        """
        self.local.mkdir(parents=True, exist_ok=True)
        for name in places.listed(self.address):
            if names.fullmatch(name) and not (self.local / name).exists():
                LOG.info("Fetching %s from %s", name, self.address)
                places.copy_file(f"{self.address}/{name}", str(self.local / name))

    def keep(self, names: re.Pattern[str]) -> None:
        """Copies up what is here and not there; then removes there what is here no more.

        Raises:
            OSError: the address cannot be written.
        """
        here = {path.name for path in self.local.iterdir() if names.fullmatch(path.name)}
        there = {name for name in places.listed(self.address) if names.fullmatch(name)}
        for name in sorted(here - there):
            places.copy_file(str(self.local / name), f"{self.address}/{name}")
        for name in there - here:
            places.remove(f"{self.address}/{name}")

    def neighbours(self) -> list["RemoteFolder"]:
        """Folders beside this one, the one that was written to last first.

        Raises:
            OSError: the address cannot be read.
        """
        parent, _, own = self.address.rpartition("/")
        found = [
            RemoteFolder(f"{parent}/{name}", self.local.parent / name)
            for name in places.listed(parent)
            if name != own
        ]
        return sorted(found, key=lambda folder: places.modified(folder.address), reverse=True)

    def remove(self) -> None:
        """Removes all that is kept there.

        Raises:
            OSError: the address cannot be written.
        """
        places.remove(self.address)

    @property
    def name(self) -> str:
        """The last part of the address."""
        return self.address.rpartition("/")[2]
