"""A training that is asked to stop finishes its step, keeps its state and says so.

SIGTERM is how Kubernetes, Vertex AI and batch systems take a machine back: some seconds later they
send SIGKILL. SIGINT is a person's Ctrl-C. A second one of them does not wait for the step.
"""

import contextlib
import logging
import os
import signal
import socket
import threading
from collections.abc import Iterator

from trainer.errors import PREEMPTED_EXIT_CODE

LOG = logging.getLogger(__name__)

HEEDED = (signal.SIGTERM, signal.SIGINT)


class StopRequest:
    """Whether somebody asked this process to stop; true once a signal came.

    Attributes:
        signal: what came first; `None` before anything came.
    """

    def __init__(self) -> None:
        self.signal: signal.Signals | None = None
        self._heard: list[int] = []
        self._handled: list[int] = []

    def __bool__(self) -> bool:
        return self.signal is not None

    def hear(self, number: int) -> None:
        """What the listening thread does about a signal: a second SIGTERM ends the process."""
        self.signal = self.signal or signal.Signals(number)
        self._heard.append(number)
        if len(self._heard) == 1:
            LOG.warning("%s: stops after this step; a second one does not wait", self.signal.name)
        if self._heard.count(signal.SIGTERM) > 1:
            os._exit(PREEMPTED_EXIT_CODE)

    def handle(self, number: int, frame: object) -> None:
        """What the main thread does about it, if it can: a second Ctrl-C interrupts as usual."""
        self.signal = self.signal or signal.Signals(number)
        self._handled.append(number)
        if self._handled.count(signal.SIGINT) > 1:
            raise KeyboardInterrupt


@contextlib.contextmanager
def heeded() -> Iterator[StopRequest]:
    """Turns SIGTERM and SIGINT into a request, as long as the block runs.

    A thread listens, because Python calls handlers between two instructions of the main thread
    only, and a step is one instruction, however long it waits for a worker that is gone. What was
    installed before is back afterwards. Outside the main thread, where Python allows no handlers,
    nothing is heard.

    Yields:
        The request.
    """
    request = StopRequest()
    if threading.current_thread() is not threading.main_thread():
        yield request
        return
    reader, writer = socket.socketpair()
    writer.setblocking(False)
    listener = threading.Thread(target=_listen, args=(reader, request), daemon=True)
    before = {number: signal.signal(number, request.handle) for number in HEEDED}
    wakeup = signal.set_wakeup_fd(writer.fileno(), warn_on_full_buffer=False)
    listener.start()
    try:
        yield request
    finally:
        signal.set_wakeup_fd(wakeup)
        for number, handler in before.items():
            signal.signal(number, handler if handler is not None else signal.SIG_DFL)
        writer.close()
        listener.join()
        reader.close()


def _listen(reader: socket.socket, request: StopRequest) -> None:
    while received := reader.recv(16):
        for number in received:
            if number in HEEDED:
                request.hear(number)
