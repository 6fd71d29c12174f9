"""The live pointer on Vertex AI: an endpoint's traffic split, with the roles in its labels.

The split and the labels move in one call, with the endpoint's etag, so that a change that was
overtaken moves nothing. A version is deployed before it gets traffic, and undeployed after it lost
it. The aliases `live`, `canary`, `previous` and `default` follow, for people and for other tools.
"""

from typing import Any

from registry.interface import RegistryError, Traffic
from registry.parts import Keep
from registry.vertex_client import VertexClient
from registry.vertex_settings import Names, VertexSettings

LIVE, CANARY, PREVIOUS, DEFAULT = "live", "canary", "previous", "default"
LIVE_LABEL, CANARY_LABEL, FENCE_LABEL = "cortexflow_live", "cortexflow_canary", "cortexflow_fence"


class VertexPointer:
    """Which versions of one model answer at one endpoint."""

    def __init__(self, client: VertexClient, names: Names, settings: VertexSettings):
        """Asks nothing yet.

        Args:
            client: of the location.
            names: of the model and endpoint.
            settings: machines and container.
        """
        self._client = client
        self._names = names
        self._settings = settings

    def read(self) -> Traffic:
        """Returns who answers, by the split; nobody where there is no endpoint or no traffic.

        Where somebody changed the split by hand, it is what the split says that is told.

        Raises:
            RegistryError: the traffic is split in a way that the registry has no words for.
        """
        endpoint = self._endpoint()
        return Traffic(None) if endpoint is None else self._traffic(endpoint)

    def loaded(self) -> frozenset[int]:
        """Returns the versions that are deployed."""
        endpoint = self._endpoint()
        return frozenset(() if endpoint is None else self._deployed(endpoint))

    def move(self, traffic: Traffic, ready: tuple[int, ...], keep: Keep) -> None:
        """Deploys who shall answer, moves the split in one call, and finishes what follows.

        What is in `ready` stays deployed if it is, so that going back needs no deployment.

        Raises:
            RegistryError: Vertex AI refused; who answers is then as it was.
        """
        endpoint = self._endpoint() or self._create(keep)
        self._refuse_strangers(endpoint)
        wanted = [number for number in (traffic.live, traffic.canary) if number is not None]
        for number in wanted:
            if number not in self._deployed(endpoint):
                self._deploy(number, keep)
                endpoint = self._endpoint()
        identifiers = {n: ids[0] for n, ids in self._deployed(endpoint).items() if n in wanted}
        split: dict[str, int] = {}
        labels = {k: v for k, v in endpoint.labels.items() if k not in (LIVE_LABEL, CANARY_LABEL)}
        if traffic.live is not None:
            labels[LIVE_LABEL] = str(traffic.live)
            split[identifiers[traffic.live]] = 100 - traffic.percent
        if traffic.canary is not None:
            labels[CANARY_LABEL] = str(traffic.canary)
            split[identifiers[traffic.canary]] = traffic.percent
        keep()
        self._update(endpoint, labels, split)
        self.tidy(ready, keep)

    def fence(self) -> None:
        """Gives the endpoint a new etag: who read the old one cannot move the split any more."""
        endpoint = self._endpoint()
        if endpoint is not None:
            count = int(endpoint.labels.get(FENCE_LABEL, "0")) + 1
            self._update(endpoint, dict(endpoint.labels) | {FENCE_LABEL: str(count)}, None)

    def tidy(self, ready: tuple[int, ...], keep: Keep) -> None:
        """Lets the aliases say what the split says, and undeploys what has no role."""
        endpoint = self._endpoint()
        if endpoint is None:
            return
        traffic = self._traffic(endpoint)
        roles = {LIVE: traffic.live, DEFAULT: traffic.live, CANARY: traffic.canary}
        back = [number for number in ready if number not in (traffic.live, traffic.canary)]
        self._mirror(roles | {PREVIOUS: back[0] if back else None}, keep)
        for number, identifiers in self._deployed(endpoint).items():
            kept = number in (traffic.live, traffic.canary, *back)
            # A deployment that outlived a crash may have doubled one: the first is used.
            for identifier in identifiers[1 if kept else 0 :]:
                if not endpoint.traffic_split.get(identifier):
                    keep()
                    operation = self._client.endpoints(
                        "undeploy_model",
                        endpoint=endpoint.name,
                        deployed_model_id=identifier,
                    )
                    self._client.wait(operation, f"undeploy version {number}", keep)

    def _traffic(self, endpoint: Any) -> Traffic:
        shares = {
            number: sum(endpoint.traffic_split.get(identifier, 0) for identifier in identifiers)
            for number, identifiers in self._deployed(endpoint).items()
        }
        live, canary = (
            int(label) if (label := endpoint.labels.get(key, "")).isdigit() else None
            for key in (LIVE_LABEL, CANARY_LABEL)
        )
        serving = sorted((n for n, share in shares.items() if share), key=lambda n: -shares[n])
        if live not in shares or not set(serving) <= {live, canary}:
            live, canary = (*serving, None, None)[:2]  # changed by hand
        if canary not in shares:
            canary = None
        if len(serving) > 2:
            raise RegistryError(
                f"{len(serving)} versions have traffic at {endpoint.name}; a registry knows a live "
                "version and one canary. Give all traffic to one of them in the console."
            )
        if not serving:
            return Traffic(None)
        return Traffic(live, canary, shares[canary] if canary is not None else 0)

    def _deployed(self, endpoint: Any) -> dict[int, list[str]]:
        """Version → ids under which it is deployed; those with traffic first."""
        found: dict[int, list[str]] = {}
        for deployed in endpoint.deployed_models:
            if deployed.model.partition("@")[0].rpartition("/")[2] == self._model_id:
                found.setdefault(int(deployed.model_version_id), []).append(deployed.id)
        for identifiers in found.values():
            identifiers.sort(key=lambda key: -endpoint.traffic_split.get(key, 0))
        return found

    @property
    def _model_id(self) -> str:
        return self._names.model.rpartition("/")[2]

    def _refuse_strangers(self, endpoint: Any) -> None:
        ours = {key for keys in self._deployed(endpoint).values() for key in keys}
        if any(share for key, share in endpoint.traffic_split.items() if key not in ours):
            raise RegistryError(
                f"{endpoint.name} also serves another model, whose traffic would end. Name another "
                "endpoint with CORTEXFLOW_VERTEX_ENDPOINT."
            )

    def _endpoint(self) -> Any:
        return self._client.endpoints("get_endpoint", name=self._names.endpoint)

    def _create(self, keep: Keep) -> Any:
        parent, _, identifier = self._names.endpoint.partition("/endpoints/")
        keep()
        operation = self._client.endpoints(
            "create_endpoint",
            parent=parent,
            endpoint_id=identifier,
            endpoint={"display_name": self._model_id},
        )
        return self._client.wait(operation, "create the endpoint", keep)

    def _deploy(self, number: int, keep: Keep) -> None:
        settings = self._settings
        deployed = {
            "model": f"{self._names.model}@{number}",
            "display_name": f"{self._model_id}-{number}",
            "service_account": settings.service_account,
            "dedicated_resources": {
                "machine_spec": {"machine_type": settings.machine_type},
                "min_replica_count": settings.min_replicas,
                "max_replica_count": settings.max_replicas,
            },
        }
        keep()
        operation = self._client.endpoints(
            "deploy_model", endpoint=self._names.endpoint, deployed_model=deployed
        )
        self._client.wait(operation, f"deploy version {number}", keep)

    def _update(self, endpoint: Any, labels: dict[str, str], split: dict[str, int] | None) -> None:
        changed = {"name": endpoint.name, "etag": endpoint.etag, "labels": labels}
        paths = ["labels"]
        if split is not None:
            changed["traffic_split"] = split
            paths.append("traffic_split")
        self._client.endpoints("update_endpoint", endpoint=changed, update_mask={"paths": paths})

    def _mirror(self, roles: dict[str, int | None], keep: Keep) -> None:
        """Gives each alias to the version with that role, and takes it from any other."""
        versions = self._client.models("list_model_versions", name=self._names.model)
        holders = {
            alias: int(version.version_id)
            for version in versions or ()
            for alias in version.version_aliases
            if alias in roles
        }
        changes: dict[int, list[str]] = {}
        for alias, number in roles.items():
            holder = holders.get(alias)
            if number is not None and holder != number:
                changes.setdefault(number, []).append(alias)
            elif number is None and holder is not None and alias != DEFAULT:
                changes.setdefault(holder, []).append(f"-{alias}")
        for number, aliases in changes.items():
            keep()
            self._client.models(
                "merge_version_aliases",
                name=f"{self._names.model}@{number}",
                version_aliases=aliases,
            )
