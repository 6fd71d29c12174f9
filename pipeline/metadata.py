"""Where a run's ML Metadata lies: a SQLite file of its workspace, or a database server.

The setting `metadata` is an address without a password. The password comes from the environment
when a connection is made, so that no config, record, command or log ever holds it.
"""

import os
import random
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import unquote, urlsplit

from pipeline.config import PipelineConfig
from pipeline.workspace import Workspace
from schema.errors import CortexflowError

if TYPE_CHECKING:
    from ml_metadata import metadata_store
    from ml_metadata.proto import metadata_store_pb2

PASSWORD = "CORTEXFLOW_METADATA_PASSWORD"  # noqa: S105  # pragma: allowlist secret
PORTS = {"mysql": 3306, "postgresql": 5432}
FORMS = "mysql://USER@HOST:PORT/DATABASE (MariaDB too) or postgresql://USER@HOST:PORT/DATABASE"
NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_-]{0,62}")
HIDDEN = "***"
TRIES, PAUSE_SECONDS = 10, 1.0  # making the tables takes seconds on a busy server


class MetadataError(CortexflowError):
    """ML Metadata cannot be had where the settings say."""


@dataclass(frozen=True)
class SqliteFile:
    """ML Metadata in a file of one machine."""

    path: Path

    def __str__(self) -> str:
        return str(self.path)

    def exists(self) -> bool:
        """Whether anything was ever written."""
        return self.path.is_file()

    def connection(self, *, write: bool = True) -> "metadata_store_pb2.ConnectionConfig":
        """How MLMD connects; makes the file when it writes, and its folder now."""
        from ml_metadata.proto import metadata_store_pb2

        modes = metadata_store_pb2.SqliteMetadataSourceConfig
        config = metadata_store_pb2.ConnectionConfig()
        config.sqlite.filename_uri = str(self.path)
        config.sqlite.connection_mode = modes.READWRITE_OPENCREATE if write else modes.READONLY
        if write:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        return config


@dataclass(frozen=True)
class Server:
    """ML Metadata in a database server, which several machines may share.

    Attributes:
        kind: "mysql" or "postgresql".
        user, host, port, database: as in the address.
    """

    kind: str
    user: str
    host: str
    port: int
    database: str

    def __str__(self) -> str:
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{self.kind}://{self.user}@{host}:{self.port}/{self.database}"

    def exists(self) -> bool:
        """A server answers for itself when it is asked."""
        return True

    def connection(self, *, write: bool = True) -> "metadata_store_pb2.ConnectionConfig":
        """How MLMD connects, with the password of the environment.

        The database must exist: making one is not for the user that writes runs.
        """
        from ml_metadata.proto import metadata_store_pb2

        del write  # a server's users have rights of their own
        config = metadata_store_pb2.ConnectionConfig()
        password = os.environ.get(PASSWORD, "")
        if self.kind == "mysql":
            mysql = config.mysql
            mysql.host, mysql.port, mysql.database = self.host, self.port, self.database
            mysql.user, mysql.password, mysql.skip_db_creation = self.user, password, True
        else:
            from pipeline.postgresql import mend

            mend()
            postgresql = config.postgresql
            postgresql.host, postgresql.port = self.host, str(self.port)
            postgresql.dbname, postgresql.user = self.database, self.user
            postgresql.password, postgresql.skip_db_creation = password, True
        return config


Database = SqliteFile | Server


def database(config: PipelineConfig, workspace: Workspace) -> Database:
    """The one place that knows where a pipeline's metadata lie.

    Raises:
        MetadataError: the setting `metadata` is no address that is understood, or has a password.
    """
    if config.metadata is None:
        return SqliteFile(workspace.metadata(config.name))
    return parsed(config.metadata)


def parsed(address: str) -> Server:
    """A server by its address. Touches no network.

    Raises:
        MetadataError: it is not of the forms `FORMS`, or has a password in it.
    """
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise MetadataError(
            f"metadata is no address (received {shown(address)!r}): {FORMS}."
        ) from None
    if parts.password is not None:
        raise MetadataError(
            f"metadata has a password in it (received {shown(address)!r}), which would stand in "
            f"the run's record. Leave it out, and set it in the environment as {PASSWORD}."
        )
    user, host = unquote(parts.username or ""), parts.hostname or ""
    name = parts.path.removeprefix("/")
    if parts.scheme not in PORTS or not user or not host or not NAME.fullmatch(name):
        raise MetadataError(
            f"metadata does not name a database (received {shown(address)!r}). Set it to {FORMS}; "
            f"the password goes into the environment as {PASSWORD}."
        )
    if parts.query or parts.fragment:
        raise MetadataError(
            f"metadata takes no options (received {shown(address)!r}). Set it to {FORMS}."
        )
    return Server(parts.scheme, user, host, port or PORTS[parts.scheme], name)


def shown(address: str) -> str:
    """An address as it may be shown and kept: without the password that it may have."""
    return re.sub(r"(?<=://)([^/@:]*):[^/]*@", rf"\1:{HIDDEN}@", address)


def store(found: Database, *, write: bool = True) -> "metadata_store.MetadataStore":
    """Connects; a database that is empty is given MLMD's tables.

    Raises:
        MetadataError: a server does not answer, lacks the database, or does not let this user in.
    """
    from ml_metadata import errors, metadata_store

    connection = found.connection(write=write)
    if isinstance(found, SqliteFile):
        return metadata_store.MetadataStore(connection)
    for left in reversed(range(TRIES)):
        try:
            return metadata_store.MetadataStore(connection)
        # What MLMD makes of any trouble while it connects. Two that make the tables at once get in
        # each other's way, which passes.
        except (RuntimeError, errors.StatusError) as error:
            if not left:
                raise _lost(found, error) from error
            time.sleep(random.uniform(0.1, PAUSE_SECONDS))  # noqa: S311 (no secret)
    raise AssertionError("no try was made")


def check(found: Database) -> None:
    """Asks a server once, so that a run does not begin which cannot be recorded.

    Raises:
        MetadataError: as `store`.
    """
    if isinstance(found, Server):
        store(found)


@contextmanager
def told(found: Database) -> Iterator[None]:
    """Errors of MLMD that mean a lost server, as one that says so.

    Raises:
        MetadataError: the server could not be reached, or went away in the middle.
    """
    try:
        yield
    except Exception as error:
        cause = _cause(error) if isinstance(found, Server) else None
        if cause is None:
            raise
        raise _lost(found, cause) from error


def _lost(found: Database, cause: BaseException) -> MetadataError:
    return MetadataError(
        f"ML Metadata at {found} cannot be used ({_line(str(cause))}). See that the server is up, "
        f"that the database exists, and that {PASSWORD} is this user's password."
    )


def _cause(error: BaseException | None) -> BaseException | None:
    """What MLMD said, wherever the launcher wrapped it; None where MLMD has no part in it."""
    from ml_metadata import errors

    while error is not None and not isinstance(error, CortexflowError):
        lost = "Failed to establish connection to Metadata" in str(error)
        if isinstance(error, errors.StatusError) or (isinstance(error, RuntimeError) and lost):
            return error
        error = error.__cause__ or error.__context__
    return None


def _line(text: str) -> str:
    """An error of a client library in one line, without the password should it ever tell it."""
    password = os.environ.get(PASSWORD)
    line = " ".join(text.replace("errno: , error:", "").split())
    return (line.replace(password, HIDDEN) if password else line)[:300].rstrip(".: ")
