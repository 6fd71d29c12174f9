"""Processes on this machine that train together, each told of the others by `TF_CONFIG`."""

import json
import os
import socket
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATIENCE = 900  # seconds until a process that does not end has hung
LISTENING = "0A"  # in Linux's table of sockets
CANNOT_BIND = "Could not start gRPC server"  # TensorFlow's words for a port that is taken


def start(commands: Sequence[Sequence], folder: Path) -> list[subprocess.Popen]:
    """Starts a worker for each command; of a single one, a process that knows of no others.

    A port is free when it is chosen, and bound seconds later. Where somebody took it in between,
    all are started once more, on other ports. Standard output is a pipe; what goes to standard
    error is added to `stderr-INDEX.txt` of the folder.
    """
    for last in (False, True):
        ports = free_ports(len(commands))
        processes = _start(commands, ports, folder)
        if len(commands) == 1:
            break
        try:
            bound = all(map(_binds, processes, ports, _logs(folder, len(commands))))
        except BaseException:
            stop(processes)
            raise
        if bound or last:
            break
        stop(processes)
    return processes


def end(processes: list[subprocess.Popen]) -> list[str]:
    """Waits for the end of all, and returns what each printed."""
    try:
        return [process.communicate(timeout=PATIENCE)[0] for process in processes]
    finally:
        stop(processes)


def stop(processes: list[subprocess.Popen]) -> None:
    """Leaves nothing of the processes, whatever they are at."""
    for process in processes:
        process.kill()
    for process in processes:
        process.wait()
        process.stdout.close()


def free_ports(count: int) -> list[int]:
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.bind(("127.0.0.1", 0))
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def _logs(folder: Path, count: int) -> list[Path]:
    return [folder / f"stderr-{index}.txt" for index in range(count)]


def _start(commands: Sequence[Sequence], ports: list[int], folder: Path) -> list[subprocess.Popen]:
    cluster = {"worker": [f"127.0.0.1:{port}" for port in ports]}
    processes = []
    for index, log in enumerate(_logs(folder, len(commands))):
        environment = os.environ | {"PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3"}
        if len(commands) > 1:
            task = {"type": "worker", "index": index}
            environment["TF_CONFIG"] = json.dumps({"cluster": cluster, "task": task})
        with log.open("a") as errors:
            processes.append(
                subprocess.Popen(
                    list(commands[index]),
                    stdout=subprocess.PIPE,
                    stderr=errors,
                    text=True,
                    env=environment,
                )
            )
    return processes


def _binds(process: subprocess.Popen, port: int, log: Path) -> bool:
    """Waits until the process listens there; false if it ended because it could not.

    A worker whose peer is missing waits for it, so that waiting for its end would not tell.
    """
    limit = time.monotonic() + PATIENCE
    while process.poll() is None and time.monotonic() < limit:
        if _listens(process.pid, port):
            return True
        time.sleep(0.2)
    return CANNOT_BIND not in log.read_text()


def _listens(pid: int, port: int) -> bool:
    """Whether a socket of this very process listens at the port."""
    try:
        rows = [
            row.split()
            for table in ("tcp", "tcp6")
            for row in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]
        ]
        own = {os.readlink(file) for file in Path(f"/proc/{pid}/fd").iterdir()}
    except OSError:  # it ended, or closed a file, meanwhile
        return False
    return any(
        row[3] == LISTENING
        and int(row[1].rpartition(":")[2], 16) == port
        and f"socket:[{row[9]}]" in own
        for row in rows
    )
