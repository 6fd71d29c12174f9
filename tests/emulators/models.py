"""Vertex AI's ModelService as far as a registry uses it, by the API's own documentation.

https://cloud.google.com/vertex-ai/docs/reference/rpc/google.cloud.aiplatform.v1#modelservice
"""

import re

from google.cloud import aiplatform_v1 as v1
from google.protobuf import empty_pb2

from tests.emulators import resources
from tests.emulators.resources import Operations, invalid, not_found, precondition

DEFAULT = "default"
DEDICATED = v1.Model.DeploymentResourcesType.DEDICATED_RESOURCES  # what a container is served by
_ALIAS = re.compile(r"[a-z][a-zA-Z0-9-]{0,126}[a-z0-9]")
_ID = re.compile(r"[a-z_][a-z0-9_-]{0,62}")
_PARENT = re.compile(r"projects/[^/]+/locations/[^/]+")
_OUTPUT_ONLY = ("version_id", "deployed_models", "supported_deployment_resources_types")
_UPDATABLE = ("display_name", "description", "labels", "version_description", "explanation_spec")


class Models:
    """Models and their versions. A version holds its own copy of the fields."""

    def __init__(self, operations: Operations, endpoints: dict):
        self.operations = operations
        self.endpoints = endpoints
        self.models: dict[str, dict[str, object]] = {}  # model name → version id → Model
        self.counters: dict[str, int] = {}  # version ids are never given twice
        self._unnamed = 1000

    def upload_model(self, request):
        """A new model, or with `parent_model` a new version of one."""
        resources.require(request, "parent", "model.display_name")
        if not _PARENT.fullmatch(request.parent):
            raise invalid(f"parent {request.parent!r} is malformed")
        model = v1.Model.pb()()
        model.CopyFrom(request.model)
        for field in _OUTPUT_ONLY:  # AIP-203: what a client says there is ignored
            model.ClearField(field)
        resources.check_labels(model.labels)
        self._check_aliases(model.version_aliases)
        if not (model.container_spec.image_uri or model.HasField("base_model_source")):
            raise invalid("container_spec.image_uri is required")
        if model.artifact_uri and not model.artifact_uri.startswith("gs://"):
            raise invalid(f"artifact_uri {model.artifact_uri!r} is no Cloud Storage folder")
        name = self._parent_name(request)

        def work():
            number = self.counters[name] = self.counters.get(name, 0) + 1
            versions = self.models.setdefault(name, {})
            model.name, model.version_id = name, str(number)
            if not versions and DEFAULT not in model.version_aliases:
                model.version_aliases.append(DEFAULT)
            self._take(name, model.version_aliases)
            for field in ("create_time", "update_time"):
                getattr(model, field).CopyFrom(resources.now())
                getattr(model, f"version_{field}").CopyFrom(resources.now())
            model.supported_deployment_resources_types.append(DEDICATED)
            versions[model.version_id] = model
            return v1.UploadModelResponse.pb()(model=name, model_version_id=model.version_id)

        metadata = v1.UploadModelOperationMetadata.pb()()
        return self.operations.begin("UploadModel", name, metadata, work)

    def _parent_name(self, request) -> str:
        if request.parent_model:
            name = request.parent_model.partition("@")[0]
            if request.model_id:
                raise invalid("model_id and parent_model exclude each other")
            if name not in self.models:
                raise not_found(name)
            return name
        if request.model_id and not _ID.fullmatch(request.model_id):
            raise invalid(f"model_id {request.model_id!r} is malformed")
        self._unnamed += 1
        name = f"{request.parent}/models/{request.model_id or self._unnamed}"
        if name in self.models:
            raise resources.exists(name)
        return name

    def get_model(self, request):
        """One version: `NAME`, `NAME@ID` or `NAME@ALIAS`; without either the default."""
        return self._shown(self.version(request.name))

    def version(self, reference: str):
        """The version that a name points to."""
        name, _, wanted = reference.partition("@")
        for model in self.models.get(name, {}).values():
            if (wanted or DEFAULT) in (model.version_id, *model.version_aliases):
                return model
        raise not_found(reference)

    def list_models(self, request):
        """The default version of each model."""
        resources.require(request, "parent")
        names = [name for name in self.models if name.startswith(f"{request.parent}/models/")]
        found = [self._shown(self.version(name)) for name in names]
        return resources.page(found, request, v1.ListModelsResponse.pb()(), "models")

    def list_model_versions(self, request):
        """The versions of a model, newest first."""
        versions = self.models.get(request.name.partition("@")[0])
        if versions is None:
            raise not_found(request.name)
        found = [self._shown(model) for model in reversed(versions.values())]
        return resources.page(found, request, v1.ListModelVersionsResponse.pb()(), "models")

    def update_model(self, request):
        """Changes what is not immutable of one version."""
        model = self.version(request.model.name)
        resources.check_labels(request.model.labels)
        resources.update(model, request.model, request.update_mask.paths, _UPDATABLE)
        model.version_update_time.CopyFrom(resources.now())
        return self._shown(model)

    def merge_version_aliases(self, request):
        """Gives aliases to a version, and takes those with a leading `-` from it."""
        resources.require(request, "name", "version_aliases")
        model = self.version(request.name)
        added = [alias for alias in request.version_aliases if not alias.startswith("-")]
        removed = [alias[1:] for alias in request.version_aliases if alias.startswith("-")]
        self._check_aliases([*added, *removed])
        if DEFAULT in removed:
            raise invalid("The default alias cannot be removed, only moved")
        if missing := set(removed) - set(model.version_aliases):
            raise invalid(f"{request.name} has no alias {', '.join(sorted(missing))}")
        self._take(model.name, [*added, *removed])
        model.version_aliases.extend(added)
        model.version_update_time.CopyFrom(resources.now())
        return self._shown(model)

    def delete_model_version(self, request):
        """Deletes a version that nothing points to."""
        name, _, wanted = request.name.partition("@")
        if not wanted:
            raise invalid(f"{request.name} names no version")
        model = self.version(request.name)
        if list(self.models[name]) == [model.version_id]:
            raise precondition("The only version goes with its model: use DeleteModel")
        if model.version_aliases:
            raise precondition(f"{request.name} has aliases: {', '.join(model.version_aliases)}")
        if self._deployed(model):
            raise precondition(f"{request.name} is deployed")

        def work():
            del self.models[name][model.version_id]
            return empty_pb2.Empty()

        metadata = v1.DeleteOperationMetadata.pb()()
        return self.operations.begin("DeleteModelVersion", name, metadata, work)

    def delete_model(self, request):
        """Deletes a model with all versions, of which none may be deployed."""
        name = request.name
        for model in self.models.get(name, {}).values():
            if self._deployed(model):
                raise precondition(f"{name}@{model.version_id} is deployed")
        if name not in self.models:
            raise not_found(name)

        def work():
            del self.models[name]
            return empty_pb2.Empty()

        metadata = v1.DeleteOperationMetadata.pb()()
        return self.operations.begin("DeleteModel", name, metadata, work)

    def _take(self, name: str, aliases) -> None:
        """An alias points to one version: whoever has it loses it."""
        for model in self.models[name].values():
            kept = [alias for alias in model.version_aliases if alias not in aliases]
            model.ClearField("version_aliases")
            model.version_aliases.extend(kept)

    def _check_aliases(self, aliases) -> None:
        if wrong := [alias for alias in aliases if not _ALIAS.fullmatch(alias)]:
            raise invalid(f"Alias {wrong[0]!r} is malformed")
        if len(set(aliases)) != len(aliases):
            raise invalid("An alias is given twice")

    def _deployed(self, model) -> list:
        return [
            v1.DeployedModelRef.pb()(endpoint=endpoint.name, deployed_model_id=deployed.id)
            for endpoint in self.endpoints.values()
            for deployed in endpoint.deployed_models
            if (deployed.model, deployed.model_version_id) == (model.name, model.version_id)
        ]

    def _shown(self, model):
        found = v1.Model.pb()()
        found.CopyFrom(model)
        found.deployed_models.extend(self._deployed(model))
        return found
