"""Vertex AI's EndpointService as far as a registry uses it, by the API's own documentation.

https://cloud.google.com/vertex-ai/docs/reference/rpc/google.cloud.aiplatform.v1#endpointservice
"""

import itertools
import re

import grpc
from google.cloud import aiplatform_v1 as v1
from google.protobuf import empty_pb2

from tests.emulators import resources
from tests.emulators.resources import ApiError, Operations, invalid, not_found, precondition

JUST_DEPLOYED = "0"  # how a split names the model that the same request deploys
_ID = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?|[0-9]{1,9}")
_UPDATABLE = ("display_name", "description", "labels", "traffic_split")


class Endpoints:
    """Endpoints, what is deployed to them and how they split their traffic."""

    def __init__(self, operations: Operations):
        self.operations = operations
        self.endpoints: dict[str, object] = {}
        self.models = None  # set by the server: deploying looks the version up
        self._ids = itertools.count(1)
        self._etags = itertools.count(1)

    def create_endpoint(self, request):
        """A new endpoint, without models."""
        resources.require(request, "parent", "endpoint.display_name")
        if request.endpoint_id and not _ID.fullmatch(request.endpoint_id):
            raise invalid(f"endpoint_id {request.endpoint_id!r} is malformed")
        if request.endpoint.deployed_models or request.endpoint.traffic_split:
            raise invalid("A new endpoint has neither models nor traffic: use DeployModel")
        resources.check_labels(request.endpoint.labels)
        name = f"{request.parent}/endpoints/{request.endpoint_id or 10**9 + next(self._ids)}"
        if name in self.endpoints:
            raise resources.exists(name)
        endpoint = v1.Endpoint.pb()()
        endpoint.CopyFrom(request.endpoint)

        def work():
            if name in self.endpoints:
                raise resources.exists(name)
            endpoint.name = name
            endpoint.create_time.CopyFrom(resources.now())
            self._touch(endpoint)
            self.endpoints[name] = endpoint
            return endpoint

        metadata = v1.CreateEndpointOperationMetadata.pb()()
        return self.operations.begin("CreateEndpoint", name, metadata, work)

    def get_endpoint(self, request):
        """One endpoint."""
        return self._endpoint(request.name)

    def list_endpoints(self, request):
        """The endpoints of a location, newest first."""
        resources.require(request, "parent")
        found = [
            endpoint
            for name, endpoint in reversed(self.endpoints.items())
            if name.startswith(f"{request.parent}/endpoints/")
        ]
        return resources.page(found, request, v1.ListEndpointsResponse.pb()(), "endpoints")

    def update_endpoint(self, request):
        """Changes labels, texts and the split in one step; a stale `etag` is refused."""
        endpoint = self._endpoint(request.endpoint.name)
        if request.endpoint.etag and request.endpoint.etag != endpoint.etag:
            raise ApiError(grpc.StatusCode.ABORTED, "The endpoint's etag does not match")
        resources.check_labels(request.endpoint.labels)
        if "traffic_split" in request.update_mask.paths:
            self._check_split(endpoint, request.endpoint.traffic_split)
        resources.update(endpoint, request.endpoint, request.update_mask.paths, _UPDATABLE)
        self._touch(endpoint)
        return endpoint

    def deploy_model(self, request):
        """Deploys a version; without a split in the request, the traffic stays as it is."""
        resources.require(request, "endpoint", "deployed_model.model")
        endpoint = self._endpoint(request.endpoint)
        model = self.models.version(request.deployed_model.model)
        deployed = v1.DeployedModel.pb()()
        deployed.CopyFrom(request.deployed_model)
        self._check_machines(deployed)
        deployed.id = deployed.id or str(10**9 + next(self._ids))
        if any(other.id == deployed.id for other in endpoint.deployed_models):
            raise resources.exists(f"{endpoint.name} deployed model {deployed.id}")
        split = {
            (deployed.id if key == JUST_DEPLOYED else key): value
            for key, value in request.traffic_split.items()
        }
        if split:
            self._check_split(endpoint, split, deployed.id)

        def work():
            deployed.model, deployed.model_version_id = model.name, model.version_id
            deployed.create_time.CopyFrom(resources.now())
            if split:
                self._check_split(endpoint, split, deployed.id)
            endpoint.deployed_models.append(deployed)
            if split:
                self._split(endpoint, split)
            self._touch(endpoint)
            return v1.DeployModelResponse.pb()(deployed_model=deployed)

        metadata = v1.DeployModelOperationMetadata.pb()()
        return self.operations.begin("DeployModel", endpoint.name, metadata, work)

    def undeploy_model(self, request):
        """Takes down a deployed model that has no traffic, or whose traffic the request moves."""
        resources.require(request, "endpoint", "deployed_model_id")
        endpoint = self._endpoint(request.endpoint)
        self._check_undeploy(endpoint, request)

        def work():
            self._check_undeploy(endpoint, request)
            kept = [d for d in endpoint.deployed_models if d.id != request.deployed_model_id]
            split = dict(request.traffic_split or endpoint.traffic_split) if kept else {}
            del endpoint.deployed_models[:]
            endpoint.deployed_models.extend(kept)
            split.pop(request.deployed_model_id, None)
            self._split(endpoint, split)
            self._touch(endpoint)
            return v1.UndeployModelResponse.pb()()

        metadata = v1.UndeployModelOperationMetadata.pb()()
        return self.operations.begin("UndeployModel", endpoint.name, metadata, work)

    def delete_endpoint(self, request):
        """Deletes an endpoint that serves nothing."""
        endpoint = self._endpoint(request.name)
        if endpoint.deployed_models:
            raise precondition(f"{endpoint.name} has deployed models")

        def work():
            del self.endpoints[request.name]
            return empty_pb2.Empty()

        metadata = v1.DeleteOperationMetadata.pb()()
        return self.operations.begin("DeleteEndpoint", endpoint.name, metadata, work)

    def _endpoint(self, name: str):
        if name not in self.endpoints:
            raise not_found(name)
        return self.endpoints[name]

    def _check_undeploy(self, endpoint, request) -> None:
        identifiers = [deployed.id for deployed in endpoint.deployed_models]
        if request.deployed_model_id not in identifiers:
            raise not_found(f"{endpoint.name} deployed model {request.deployed_model_id}")
        split = request.traffic_split or endpoint.traffic_split
        if split.get(request.deployed_model_id) and len(identifiers) > 1:
            raise precondition(f"Deployed model {request.deployed_model_id} still has traffic")
        if request.traffic_split:
            self._check_split(endpoint, request.traffic_split)

    def _check_split(self, endpoint, split, *new: str) -> None:
        """A split is empty, or sums to 100 over models that are deployed."""
        known = {deployed.id for deployed in endpoint.deployed_models} | set(new)
        if unknown := sorted(set(split) - known):
            raise invalid(f"Traffic split names {unknown[0]}, which is not deployed")
        if any(not 0 <= share <= 100 for share in split.values()):
            raise invalid(f"Traffic split {dict(split)} has a share outside 0 to 100")
        if split and sum(split.values()) != 100:
            raise invalid(f"Traffic split sums to {sum(split.values())}, not 100")

    def _check_machines(self, deployed) -> None:
        machines = deployed.dedicated_resources
        if not deployed.HasField("dedicated_resources"):
            raise invalid("A model with a container of its own is served by dedicated_resources")
        if not (machines.machine_spec.machine_type and machines.min_replica_count > 0):
            raise invalid("dedicated_resources want a machine_type and min_replica_count")

    def _split(self, endpoint, split) -> None:
        endpoint.ClearField("traffic_split")
        endpoint.traffic_split.update(split)

    def _touch(self, endpoint) -> None:
        endpoint.update_time.CopyFrom(resources.now())
        endpoint.etag = f"etag-{next(self._etags)}"
