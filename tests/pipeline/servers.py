"""Database servers of Debian's packages, run by hand: on loopback, with data of their own.

They are started as a user without rights where the tests run as root, since neither server runs as
root. Nothing is left behind.
"""

import abc
import contextlib
import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

LOOPBACK = "127.0.0.1"
USER = "runs"
START_SECONDS = 120.0


class DatabaseServer(abc.ABC):
    """One server with its data; may be killed and started again."""

    scheme = ""

    def __init__(self, folder: Path, databases: tuple[str, ...]):
        self.folder, self.databases = folder, databases
        self.password = secrets.token_hex(12)
        self.port = _free_port()
        self.process: subprocess.Popen | None = None

    @staticmethod
    @abc.abstractmethod
    def missing() -> str:
        """Why it cannot be started here; empty where it can."""

    def address(self, database: str) -> str:
        """The setting `metadata`."""
        return f"{self.scheme}://{USER}@{LOOPBACK}:{self.port}/{database}"

    @abc.abstractmethod
    def prepare(self) -> None:
        """Makes the data's folder."""

    @abc.abstractmethod
    def command(self) -> list[str]:
        """What runs the server in the foreground."""

    def populate(self) -> None:  # noqa: B027 (MariaDB does so when it makes its folder)
        """Makes databases and the user, once the server runs for the first time."""

    def start(self) -> None:
        """Starts the server and waits until it answers."""
        with (self.folder / "log").open("ab") as log:
            self.process = subprocess.Popen(
                self.command(), stdout=log, stderr=log, user=_owner(), start_new_session=True
            )
        deadline = time.monotonic() + START_SECONDS
        while not self.answers():
            ended = self.process.poll() is not None
            if ended or time.monotonic() > deadline:
                raise RuntimeError((self.folder / "log").read_text()[-2000:])
            time.sleep(0.1)

    def answers(self) -> bool:
        """Whether it takes connections."""
        with contextlib.suppress(OSError), socket.create_connection((LOOPBACK, self.port), 1):
            return True
        return False

    def kill(self) -> None:
        """Ends it at once, as a machine that is lost."""
        assert self.process is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def run(self, *command: str, **environment: str) -> str:
        """Runs a program of the package as the server's owner."""
        done = subprocess.run(
            command, user=_owner(), cwd=self.folder, capture_output=True, text=True, check=False,
            env={**os.environ, **environment}, timeout=START_SECONDS,
        )  # fmt: skip
        if done.returncode:
            raise RuntimeError(f"{command[0]} ended with {done.returncode}: {done.stderr[-2000:]}")
        return done.stdout


class MariaDB(DatabaseServer):
    """MariaDB, which speaks MySQL's protocol."""

    scheme = "mysql"

    @staticmethod
    def missing() -> str:
        needed = [name for name in ("mariadbd", "mariadb-install-db") if not _program(name)]
        return f"{', '.join(needed)} not found: apt-get install mariadb-server" if needed else ""

    def prepare(self) -> None:
        self.run(
            _program("mariadb-install-db"), "--no-defaults", f"--datadir={self.folder / 'data'}",
            "--auth-root-authentication-method=normal", "--skip-test-db",
        )  # fmt: skip
        lines = [
            f"CREATE USER IF NOT EXISTS '{USER}'@'{LOOPBACK}' IDENTIFIED BY '{self.password}';"
        ]
        for name in self.databases:
            lines += [f"CREATE DATABASE IF NOT EXISTS {name};"]
            lines += [f"GRANT ALL ON {name}.* TO '{USER}'@'{LOOPBACK}';"]
        (self.folder / "setup.sql").write_text("\n".join(lines))

    def command(self) -> list[str]:
        return [
            _program("mariadbd"), "--no-defaults", f"--datadir={self.folder / 'data'}",
            f"--port={self.port}", f"--bind-address={LOOPBACK}", "--skip-networking=0",
            f"--socket={self.folder / 'socket'}", f"--init-file={self.folder / 'setup.sql'}",
            "--skip-name-resolve", "--innodb-buffer-pool-size=32M",
        ]  # fmt: skip


class PostgreSQL(DatabaseServer):
    """PostgreSQL, with passwords asked for."""

    scheme = "postgresql"

    @staticmethod
    def missing() -> str:
        needed = [name for name in ("initdb", "postgres", "psql") if not _program(name)]
        return f"{', '.join(needed)} not found: apt-get install postgresql" if needed else ""

    def prepare(self) -> None:
        secret = self.folder / "secret"
        secret.write_text(self.password)
        if _owner() is not None:
            shutil.chown(secret, _owner())
        self.run(
            _program("initdb"), "--pgdata", str(self.folder / "data"), "--username", USER,
            "--auth=scram-sha-256", f"--pwfile={secret}", "--no-locale", "--encoding=UTF8",
        )  # fmt: skip

    def command(self) -> list[str]:
        return [
            _program("postgres"), "-D", str(self.folder / "data"), "-p", str(self.port),
            "-h", LOOPBACK, "-k", str(self.folder),
        ]  # fmt: skip

    def answers(self) -> bool:
        """Its port is open before it lets anybody in."""
        with contextlib.suppress(RuntimeError):
            self.ask("SELECT 1")
            return True
        return False

    def populate(self) -> None:
        for name in self.databases:
            self.ask(f"CREATE DATABASE {name}")

    def ask(self, statement: str) -> None:
        """Lets the server carry out a statement."""
        self.run(
            _program("psql"), "--host", LOOPBACK, "--port", str(self.port), "--username", USER,
            "--command", statement, "postgres", PGPASSWORD=self.password,
        )  # fmt: skip


@contextlib.contextmanager
def running(kind: type[DatabaseServer], *databases: str) -> Iterator[DatabaseServer]:
    """A server that has empty databases of these names; ended and removed afterwards."""
    # Not below pytest's own folder, into which nobody but its owner may look; and a short path,
    # since it holds a socket.
    with tempfile.TemporaryDirectory(prefix="cortexflow-db-") as name:
        folder = Path(name)
        if _owner() is not None:
            shutil.chown(folder, _owner())
        server = kind(folder, databases)
        server.prepare()
        server.start()
        try:
            server.populate()
            yield server
        finally:
            server.kill()


def _owner() -> str | None:
    """Whose process a server is; None: of whoever runs the tests."""
    return "nobody" if os.geteuid() == 0 and pwd.getpwnam("nobody") else None


def _program(name: str) -> str:
    """Where a server's program lies; Debian keeps PostgreSQL's off the PATH. Empty: nowhere."""
    places = [shutil.which(name), shutil.which(name, path="/usr/sbin")]
    places += sorted(map(str, Path("/usr/lib/postgresql").glob(f"*/bin/{name}")), reverse=True)
    return next((place for place in places if place), "")


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind((LOOPBACK, 0))
        return probe.getsockname()[1]
