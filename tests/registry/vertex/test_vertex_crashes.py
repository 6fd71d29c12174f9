"""Wherever a change on Vertex AI dies, one verified version serves and a repeat finishes."""

import time as wait

import grpc
import pytest

from registry.interface import Traffic
from registry.vertex import VertexRegistry
from tests.registry.bucket.remote import (
    BUCKET,
    CHANGES,
    LEFT,
    WHY,
    Death,
    Died,
    client,
    deaths,
    model,
    push,
)
from tests.registry.vertex.conftest import LOCATION, NAME, PROJECT


class Dying(grpc.UnaryUnaryClientInterceptor):
    """Lets every call of the client's transport pass by a death."""

    def __init__(self, death: Death):
        self._death = death

    def intercept_unary_unary(self, continuation, client_call_details, request):
        name = client_call_details.method.rpartition("/")[2]
        return self._death.passing(name, lambda: _ended(continuation(client_call_details, request)))


def _ended(call):
    """Waits for the answer, so that dying after the call is dying after it took effect."""
    call.code()
    return call


@pytest.fixture
def opened(gcs, settings, time, monkeypatch):
    """Opens the registry, in a process that may die."""

    def open_registry(death: Death | None = None) -> VertexRegistry:
        registry = VertexRegistry(
            PROJECT,
            LOCATION,
            NAME,
            settings=settings,
            storage=client(gcs.host, death),
            clock=time,
        )
        if death is not None:

            def transport(of):
                channel = grpc.insecure_channel(settings.emulator_host)
                dying = grpc.intercept_channel(channel, Dying(death))
                return of.get_transport_class("grpc")(channel=dying)

            monkeypatch.setattr(registry.client, "_emulator_transport", transport)
        return registry

    return open_registry


def check_endpoint(registry, was: Traffic, wanted: Traffic) -> None:
    """The split is whole, on deployed models of which each is a verified version."""
    name = f"projects/{PROJECT}/locations/{LOCATION}/endpoints/{NAME}"
    endpoint = registry.client.endpoints("get_endpoint", name=name)
    assert registry.traffic() in (was, wanted)
    if endpoint is None or not endpoint.deployed_models:
        assert was.live is None
        return
    split = dict(endpoint.traffic_split)
    assert set(split) <= {deployed.id for deployed in endpoint.deployed_models}
    assert sum(split.values()) == (100 if registry.traffic().live else 0)
    for deployed in endpoint.deployed_models:
        if split.get(deployed.id):
            assert registry.verify(int(deployed.model_version_id))


def artifacts(gcs) -> set[str]:
    """Digests under which files lie."""
    start = f"staging/{NAME}/artifacts/"
    blobs = client(gcs.host).list_blobs(BUCKET, prefix=start)
    return {blob.name.removeprefix(start).split("/")[0] for blob in blobs}


def test_a_removal_that_died_on_the_way_is_finished_by_any_change(
    gcs, service, opened, time, tmp_path
):
    """Vertex AI has let the version go, the registry has not yet."""
    gcs.restore("empty")
    for content in "abc":
        push(opened(), model(tmp_path / content, content))
    opened().promote(2, **WHY)
    opened().rollback(to=2, **WHY)

    class AfterDelete(Death):
        def passing(self, name, carry_out):
            answer = super().passing(name, carry_out)
            if name == "DeleteModelVersion":
                self.dead = True
                raise Died(name)
            return answer

    with pytest.raises(Died):
        opened(AfterDelete(None)).gc(0, **WHY)
    assert [version.number for version in opened().versions()] == [1, 2, 3]
    time.outlive_a_lease()
    opened().set_traffic(3, 10, **WHY)
    registry = opened()
    assert [registry.verify(version.number).number for version in registry.versions()] == [2, 3]
    assert [(e.action, e.version, e.state) for e in registry.history()][-2:] == [
        ("gc", 1, "done"),
        ("set_traffic", 3, "done"),
    ]
    assert artifacts(gcs) == {version.digest for version in registry.versions()}
    assert push(registry, tmp_path / "a").number == 4


@pytest.mark.slow
@pytest.mark.parametrize("change", CHANGES)
def test_dying_anywhere_leaves_a_verified_version(gcs, service, opened, time, tmp_path, change):
    before, act, wanted = CHANGES[change]
    gcs.restore("empty")
    for number in range(before):
        push(opened(), model(tmp_path / f"m{number}", f"m{number}"))
    was = Traffic(before or None)
    source = model(tmp_path / "new", "new")
    gcs.keep("template")
    service(keep="template")
    tried = []
    for death in deaths():
        gcs.restore("template")
        service(restore="template")
        try:
            act(opened(death), source)
        except Died:
            tried.append(death.calls[-1])
        check_endpoint(opened(), was, wanted)
        time.outlive_a_lease()
        act(opened(), source)
        registry = opened()
        assert registry.traffic() == wanted, death.calls
        check_endpoint(registry, wanted, wanted)
        numbers = [version.number for version in registry.versions()]
        assert numbers == LEFT.get(change, [1, 2]), death.calls
        assert artifacts(gcs) == {registry.show(number).digest for number in numbers}, death.calls
        listed = registry.client.models(
            "list_model_versions", name=f"projects/{PROJECT}/locations/{LOCATION}/models/{NAME}"
        )
        roles = {a: int(v.version_id) for v in listed for a in v.version_aliases}
        assert sorted(int(v.version_id) for v in listed) == numbers, death.calls
        assert roles["live"] == roles["default"] == wanted.live, death.calls
        assert roles.get("canary") == wanted.canary, death.calls
        assert "unfinished" not in [event.state for event in registry.history()]
        assert registry.audit().faults == (), death.calls
    names = {name.rpartition("/")[2] for name in tried}
    moves = {"DeleteModelVersion"} if change == "gc" else {"UpdateEndpoint"}
    assert {"GetEndpoint", "o"} | moves <= names, names
    if "push" in change:
        assert {"UploadModel", "DeployModel"} <= names, names
    assert len(tried) >= 30, tried


class DeathWhileWaiting(Death):
    """Kills at the first look at an operation, which goes on without its client."""

    def passing(self, name, carry_out):
        if name == "GetOperation":
            self.dead = True
        return super().passing(name, carry_out)


def test_an_operation_may_outlive_its_client(gcs, vertex, opened, time, tmp_path):
    """The deployment that a dead client began ends later; it is used or taken down, not doubled."""
    gcs.restore("empty")
    push(opened(), model(tmp_path / "a", "a"))
    push(opened(), model(tmp_path / "b", "b"), make_live=False)
    vertex(delay=0.3)
    with pytest.raises(Died):
        opened(DeathWhileWaiting(None)).set_traffic(2, 20, **WHY)
    assert opened().traffic() == Traffic(1)
    vertex(delay=0)
    time.outlive_a_lease()
    opened().set_traffic(2, 20, **WHY)
    registry = opened()
    check_endpoint(registry, Traffic(1), Traffic(1, 2, 20))
    assert registry.traffic() == Traffic(1, 2, 20)
    wait.sleep(0.4)  # whatever was under way has ended
    registry.promote(2, **WHY)
    name = f"projects/{PROJECT}/locations/{LOCATION}/endpoints/{NAME}"
    deployed = registry.client.endpoints("get_endpoint", name=name).deployed_models
    assert sorted(found.model_version_id for found in deployed) == ["1", "2"]
