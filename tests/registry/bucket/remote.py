"""What tests of remote registries share: models to push, clocks, and deaths at every call."""

import contextlib
import itertools
from pathlib import Path

from google.auth.credentials import AnonymousCredentials
from google.cloud import storage

from registry.bucket_lock import SECONDS
from registry.interface import Traffic
from registry.lease import Clock
from tests.emulators import processes

BUCKET = "models-under-test"
WHY = {"reason": "test", "who": "tester"}
CHANGING = ("POST", "PUT", "PATCH", "DELETE")


def model(folder: Path, content: str) -> Path:
    """A folder that looks like an exported model."""
    (folder / "variables").mkdir(parents=True)
    (folder / "saved_model.pb").write_text(content)
    (folder / "variables" / "variables.index").write_text("index of " + content)
    return folder


def push(registry, source: Path, **more):
    """Pushes with nothing to tell."""
    return registry.push(source, metrics={}, lineage={}, **WHY, **more)


# Before it, so many versions, each of which was live; the change; who answers after it.
CHANGES = {
    "first push": (0, push, Traffic(1)),
    "push": (2, push, Traffic(3)),
    "promote": (2, lambda registry, _: registry.promote(1, **WHY), Traffic(1)),
    "rollback": (2, lambda registry, _: registry.rollback(to=1, **WHY), Traffic(1)),
    "set_traffic": (2, lambda registry, _: registry.set_traffic(1, 20, **WHY), Traffic(2, 1, 20)),
    "gc": (4, lambda registry, _: registry.gc(1, **WHY), Traffic(4)),
}
LEFT = {"first push": [1], "push": [1, 2, 3], "gc": [3, 4]}  # other changes leave both versions


class Time(Clock):
    """A clock that only waiting moves."""

    def __init__(self):
        self.now = 1_000_000.0

    def time(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds

    def outlive_a_lease(self) -> None:
        self.now += SECONDS + 1


class Died(BaseException):
    """The process is dead: nothing that it still tries reaches anybody."""


class Death:
    """Kills at the nth call that passes, before or after it is carried out."""

    def __init__(self, nth: int | None, moment: str = "before"):
        self.nth = nth
        self.moment = moment
        self.calls: list[str] = []
        self.dead = False

    def passing(self, name: str, carry_out):
        if self.dead:
            raise Died(name)
        fatal = self.nth == len(self.calls)
        self.calls.append(name)
        if fatal and self.moment == "before":
            self.dead = True
            raise Died(name)
        answer = carry_out()
        if fatal:
            self.dead = True
            raise Died(name)
        return answer


@contextlib.contextmanager
def emulated():
    """An object store of its own process, with an empty bucket kept as "empty"."""
    with processes.storage() as control:
        client(control.host).create_bucket(BUCKET)
        control.keep("empty")
        yield control


def client(host: str, death: Death | None = None) -> storage.Client:
    """A client of an emulated object store, that may die at each change it makes."""
    made = storage.Client(
        project="test", credentials=AnonymousCredentials(), client_options={"api_endpoint": host}
    )
    if death is not None:
        original = made._http.request

        def request(method, url, *args, **kwargs):
            def carry_out():
                return original(method, url, *args, **kwargs)

            if method.upper() in CHANGING:
                return death.passing(f"{method} {url.partition('?')[0]}", carry_out)
            if death.dead:
                raise Died(url)
            return carry_out()

        made._http.request = request
    return made


def deaths():
    """Every moment at which to die, per moment until `next` says the change lived."""
    for moment in ("before", "after"):
        for nth in itertools.count():
            death = Death(nth, moment)
            yield death
            if not death.dead:
                break
