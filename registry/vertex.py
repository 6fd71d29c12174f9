"""A registry on Vertex AI: versions of one parent model, an endpoint's traffic, a history.

    Model Registry   one model, one version for each push; aliases `live`, `canary`, `previous`
    endpoint         the pointer: its traffic split, with the roles in its labels
    gs://STAGING     .lock, and NAME/{artifacts/DIGEST, manifests, history}: files, proofs, history

A version's number is the one that Vertex AI gives it. Its files are uploaded and read back first;
the registry's manifest is written last, and only then does the version exist here. What a crash
leaves in between is taken up by the repeated push, or removed by `gc`.
"""

import re
from collections.abc import Collection
from typing import Any

from registry.bucket import in_bucket
from registry.bucket_objects import Objects
from registry.bucket_store import BucketStore
from registry.interface import RegistryError, VerificationError, Version
from registry.keys import Keys
from registry.lease import Clock
from registry.parts import Keep, Renumbered
from registry.versioned import VersionedRegistry
from registry.vertex_client import VertexClient
from registry.vertex_pointer import VertexPointer
from registry.vertex_settings import Names, VertexSettings

DIGEST_LABEL, RUN_LABEL, WHO_LABEL = "cortexflow_digest", "cortexflow_run", "cortexflow_who"


class VertexStore(BucketStore):
    """Versions whose files lie in a bucket, and which Vertex AI's Model Registry knows."""

    def __init__(
        self,
        objects: Objects,
        name: str,
        keys: Keys,
        client: VertexClient,
        names: Names,
        settings: VertexSettings,
    ):
        """Asks nothing yet; arguments as of `BucketStore` and `VertexPointer`."""
        super().__init__(objects, name, keys)
        self._client = client
        self._names = names
        self._settings = settings

    def folder_of(self, version: Version) -> str:
        """By content: the number is known only once Vertex AI has the artifact's address."""
        return f"artifacts/{version.digest}"

    def compare(self, version: Version) -> None:
        """Reads every byte, and asks whether Vertex AI's version is of these files.

        Raises:
            VerificationError: it is not what was pushed, or Vertex AI has another artifact.
        """
        super().compare(version)
        name = f"{self._names.model}@{version.number}"
        known = self._known(version.number)
        if known is None:
            raise VerificationError(f"{name} was removed from Vertex AI.")
        if known.artifact_uri.rstrip("/") != self.address(version):
            raise VerificationError(
                f"{name} is of {known.artifact_uri}, not of {self.address(version)}."
            )

    def next_number(self, digest: str, pushed: Collection[int]) -> int:
        """The number that Vertex AI is expected to give next, or gave to a push that then died."""
        orphan = self._orphan(digest)
        if orphan is not None:
            return orphan
        listed = [int(version.version_id) for version in self._listed()]
        return max([super().next_number(digest, pushed), *(number + 1 for number in listed)])

    def resume_removal(self, number: int, keep: Keep) -> bool:
        """Finishes a removal of which Vertex AI knows; returns whether the version ended."""
        if number in self.numbers() and self._known(number) is None:
            self.remove(number, keep)
        return super().resume_removal(number, keep)

    def sweep(self) -> None:
        """Removes artifacts that belong to no version."""
        listed = self.objects.list(f"{self.name}/artifacts")
        found = {"/".join(name.split("/")[1:3]) for name in listed}
        if len(found) != len(self.numbers()):
            self._sweep(found)

    def discard(self, keep: Keep) -> None:
        """Removes versions that pushes left on Vertex AI when they died and were not repeated."""
        present = set(self.numbers())
        for version in self._listed(f"labels.{DIGEST_LABEL}:*"):
            number = int(version.version_id)
            if number in present or list(version.version_aliases) == ["default"]:
                continue
            if version.version_aliases:
                raise RegistryError(
                    f"{self._names.model}@{number} is no version of this registry, and has the "
                    f"aliases {', '.join(version.version_aliases)}. Remove it by hand."
                )
            self.withdraw(number, keep)

    def publish(self, version: Version, keep: Keep) -> None:
        """Tells Vertex AI of a version whose files are proved.

        Raises:
            Renumbered: Vertex AI gave it another number.
            RegistryError: Vertex AI refuses, or gives a number that was used.
        """
        number = self._orphan(version.digest)
        if number is None:
            number = self._upload(version, keep)
        if number in self.used():
            raise RegistryError(
                f"Vertex AI gave the number {number}, which the history knows: {self._names.model} "
                "was deleted and made anew by somebody. Push under another name."
            )
        if number != version.number:
            raise Renumbered(
                f"Vertex AI numbered the version {number} instead of {version.number}. Repeat the "
                "command: the upload is taken up."
            )

    def withdraw(self, number: int, keep: Keep) -> None:
        """Deletes a version from Vertex AI; one that is absent is no error.

        Raises:
            RegistryError: Vertex AI refuses, because it is deployed or has an alias.
        """
        keep()
        name = f"{self._names.model}@{number}"
        operation = self._client.models("delete_model_version", name=name)
        if operation is not None:
            self._client.wait(operation, f"delete version {number}", keep)

    def _orphan(self, digest: str) -> int | None:
        """A version of this content that Vertex AI has and the registry has not, after a crash."""
        present = set(self.numbers())
        label = f'labels.{DIGEST_LABEL}="{_label(digest)}"'
        found = [int(version.version_id) for version in self._listed(label)]
        return next((number for number in sorted(found) if number not in present), None)

    def _upload(self, version: Version, keep: Keep) -> int:
        name = self._names.model
        request: dict[str, Any] = {
            "parent": self._names.parent,
            "model": {
                "display_name": self.name,
                "version_description": f"{version.reason} (by {version.who}; {version.digest})",
                "artifact_uri": self.address(version),
                "container_spec": {"image_uri": self._settings.image},
                "labels": {
                    DIGEST_LABEL: _label(version.digest),
                    RUN_LABEL: _label(str(version.lineage.get("run_id", ""))),
                    WHO_LABEL: _label(version.who),
                },
            },
        }
        if self._client.models("get_model", name=name) is None:
            request["model_id"] = name.rpartition("/")[2]
        else:
            request["parent_model"] = name
        keep()
        operation = self._client.models("upload_model", **request)
        answer = self._client.wait(operation, "upload the version", keep)
        return int(answer.model_version_id)

    def _known(self, number: int) -> Any:
        return self._client.models("get_model", name=f"{self._names.model}@{number}")

    def _listed(self, expression: str = "") -> list[Any]:
        name = self._names.model
        found = self._client.models("list_model_versions", name=name, filter=expression)
        return list(found or ())


class VertexRegistry(VersionedRegistry):
    """Versions of the model `name` on Vertex AI. Connects with the first question, not before."""

    def __init__(
        self,
        project: str,
        location: str,
        name: str,
        *,
        settings: VertexSettings | None = None,
        keys: Keys | None = None,
        storage: Any = None,
        clock: Clock | None = None,
    ):
        """Points at a registry, which need not exist yet.

        Args:
            project: id of the project.
            location: such as `europe-west4`.
            name: of the model.
            settings: None takes those that the environment gives.
            keys: key files; None takes those that the environment names.
            storage: a `google.cloud.storage.Client`; None makes one from the environment.
            clock: what the lock's expiry and waiting go by.

        Raises:
            RegistryError: a name is none that Vertex AI allows, or a setting is out of bounds.
        """
        keys = Keys.from_environment() if keys is None else keys
        settings = VertexSettings.from_environment() if settings is None else settings
        names = Names.of(project, location, name, settings)
        self.client = VertexClient(location, settings, clock)
        store = VertexStore(
            Objects(names.staging, storage), name, keys, self.client, names, settings
        )
        pointer = VertexPointer(self.client, names, settings)
        super().__init__(name, in_bucket(store, keys, clock, pointer))


def _label(text: str) -> str:
    """A text as a label's value: 63 small letters, digits, `-` and `_`."""
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:63]
