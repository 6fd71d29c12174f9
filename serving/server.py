"""The server: two fronts, one engine, and how they begin and end together.

Sockets are bound first, so that a taken port is told before anything is loaded, and accept only
when the engine has started: who comes earlier waits in the backlog and is not turned away.
"""

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
import uvloop

from schema.errors import CortexflowError
from serving import connections, heap, logs
from serving.buffered import Buffered
from serving.config import ServerSettings
from serving.interface import Engine, Observation
from serving.metrics import Metrics
from serving.prediction_log import PredictionLog
from serving.rest import RestApp

KEEP_ALIVE_SECONDS = 75
BACKLOG = 2048
# For which a thread keeps Python's lock while another waits. By default 5 ms, in which several
# requests are answered: the event loop and the model's threads would wait for each other that long.
SWITCH_SECONDS = 0.001


class ServerError(CortexflowError):
    """The server cannot start."""


class _Uvicorn(uvicorn.Server):
    """uvicorn's server, which leaves signals to ours."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


class ModelServer:
    """One server in one event loop.

    Args:
        settings: of the server.
        engine: what answers; None makes the real one.
    """

    def __init__(self, settings: ServerSettings, engine: Engine | None = None):
        if engine is None:
            from serving.engine import ServingEngine

            engine = ServingEngine(settings)
        self.settings = settings
        self.engine: Engine = engine
        self.metrics = Metrics(engine)
        self.rest_port: int | None = None
        self.grpc_port: int | None = None
        self._log: PredictionLog | None = None
        if settings.prediction_log is not None:
            self._log = PredictionLog(settings.prediction_log, settings.log, self.metrics.logged)
        self.buffered = Buffered(settings.limits.max_buffered_bytes)
        self._app = RestApp(engine, settings.limits, self.metrics, self._observe, self.buffered)
        self._uvicorn: uvicorn.Server | None = None
        self._serving: asyncio.Task[None] | None = None
        self._grpc: Any = None
        self._bound: list[socket.socket] = []
        engine.observe(self._observe)

    def _observe(self, observation: Observation) -> None:
        self.metrics.observe(observation)
        if self._log is not None:
            self._log.observe(observation)

    async def start(self) -> None:
        """Binds, loads, then answers.

        Raises:
            ServerError: an address cannot be bound.
            PredictionLogError: the prediction log cannot be written.
        """
        try:
            self._bind()
            if self._log is not None:
                self._log.start()
            with logs.libraries_told():
                await self.engine.start()
            await self._open()
        except BaseException:
            await self.stop()
            raise
        logs.event(
            "started", rest_port=self.rest_port, grpc_port=self.grpc_port, ready=self.engine.ready
        )

    def _bind(self) -> None:
        settings = self.settings
        if settings.rest_port is not None:
            listener = _listener(settings.host, settings.rest_port)
            self._bound.append(listener)
            self.rest_port = listener.getsockname()[1]
        if settings.grpc_port is not None:
            os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # its lines are no JSON
            from serving.rpc import RpcServices

            services = RpcServices(
                self.engine, settings, self.metrics, self._observe, self.buffered
            )
            self._grpc = services.server()
            host = f"[{settings.host}]" if ":" in settings.host else settings.host
            try:
                self.grpc_port = self._grpc.add_insecure_port(f"{host}:{settings.grpc_port}")
            except RuntimeError:
                raise _taken(settings.host, settings.grpc_port, "grpc") from None

    async def _open(self) -> None:
        if self._bound:
            config = uvicorn.Config(
                self._app,
                http=connections.protocol(self.settings.limits),
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                proxy_headers=False,
                server_header=False,
                backlog=BACKLOG,
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=max(1, round(self.settings.drain_seconds)),
            )
            self._uvicorn = _Uvicorn(config)
            self._serving = asyncio.create_task(self._uvicorn.serve(sockets=self._bound))
            while not self._uvicorn.started and not self._serving.done():
                await asyncio.sleep(0.001)
            if self._serving.done():
                await self._serving
        if self._grpc is not None:
            await self._grpc.start()

    async def stop(self) -> None:
        """Says that it is not ready, accepts nothing new, lets what is under way end, and flushes.

        Waits `drain_seconds` at most, then cancels.
        """
        self._app.stopping = True
        logs.event("stopping")
        endings = []
        if self._uvicorn is not None and self._serving is not None:
            self._uvicorn.should_exit = True
            endings.append(asyncio.ensure_future(self._serving))
        if self._grpc is not None:
            endings.append(asyncio.ensure_future(self._grpc.stop(self.settings.drain_seconds)))
        for problem in await asyncio.gather(*endings, return_exceptions=True):
            if isinstance(problem, Exception):
                logs.error("a front did not stop cleanly", problem)
        for listener in self._bound:
            listener.close()
        await self.engine.stop()
        if self._log is not None:
            await asyncio.to_thread(self._log.close)
        logs.event("stopped")


def run(
    settings: ServerSettings,
    announce: Callable[[ModelServer], None],
    engine: Engine | None = None,
) -> int:
    """Serves until SIGTERM or SIGINT; a second signal does not wait for requests under way.

    Args:
        settings: of the server.
        announce: called once, when it answers.
        engine: what answers; None makes the real one.

    Returns:
        The exit code, 0.

    Raises:
        CortexflowError: it cannot start.
    """
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logs.configure()
    heap.keep_pages()
    sys.setswitchinterval(SWITCH_SECONDS)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_run(ModelServer(settings, engine), announce))


async def _run(server: ModelServer, announce: Callable[[ModelServer], None]) -> int:
    stopped = asyncio.Event()

    def on_signal(number: int) -> None:
        if stopped.is_set():
            os._exit(128 + number)  # what is under way is given up, as kill -9 would
        logs.event("signal", number=number)
        stopped.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    starting = asyncio.create_task(server.start())
    waiting = asyncio.create_task(stopped.wait())
    await asyncio.wait({starting, waiting}, return_when=asyncio.FIRST_COMPLETED)
    if not starting.done():  # told to leave while it loads
        starting.cancel()
        await asyncio.gather(starting, return_exceptions=True)
        return 0
    try:
        await starting
        announce(server)
        await waiting
    finally:
        waiting.cancel()
        if starting.exception() is None:
            await server.stop()
    return 0


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise _taken(host, port, "rest") from None
    listener.setblocking(False)
    return listener


def _taken(host: str, port: int, which: str) -> ServerError:
    return ServerError(
        f"Cannot listen on {host}:{port}: the port is taken, or the address is not this "
        f"machine's. Give another with --{which}-port (0 takes a free one) or --host."
    )
