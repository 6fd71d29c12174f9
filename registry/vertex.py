"""A registry on Vertex AI: versions of one parent model, an endpoint's traffic, a history.

    Model Registry   one model, one version for each push; aliases `live`, `canary`, `previous`
    endpoint         the pointer: its traffic split, with the roles in its labels
    gs://STAGING     .lock, and NAME/{artifacts/DIGEST, manifests, history}: files, proofs, history

A version's number is the one that Vertex AI gives it. Its files are uploaded and read back first;
the registry's manifest is written last, and only then does the version exist here. What a crash
leaves in between is taken up by the repeated push, or removed by `gc`.
"""

import contextlib
import dataclasses
import os
import re
from collections.abc import Collection, Mapping
from typing import Any

from registry.bucket import RemoteRegistry
from registry.bucket_changes import BucketChanges
from registry.bucket_lock import Clock
from registry.bucket_objects import Objects
from registry.bucket_store import BucketStore
from registry.interface import File, RegistryError, VerificationError, Version
from registry.keys import Keys
from registry.vertex_client import VertexClient
from registry.vertex_pointer import VertexPointer
from registry.vertex_settings import Names, VertexSettings

DIGEST_LABEL, RUN_LABEL, WHO_LABEL = "cortexflow_digest", "cortexflow_run", "cortexflow_who"


class Renumbered(RegistryError):
    """Vertex AI gave a version another number than was foreseen; the push is made once more."""


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

    def folder(self, version: Version) -> str:
        """By content: the number is known only once Vertex AI has the artifact's address."""
        return f"artifacts/{version.digest}"

    def prove(self, number: int, recorded: Collection[str], signed: bool = True) -> Version:
        """Reads every byte, and asks whether Vertex AI's version is of these files; see above.

        Raises:
            RegistryError: there is no such version.
            VerificationError: it is not what was pushed, or Vertex AI has another artifact.
        """
        version = super().prove(number, recorded, signed)
        known = self._client.models("get_model", name=f"{self._names.model}@{number}")
        if known is None:
            raise VerificationError(f"{self._names.model}@{number} was removed from Vertex AI.")
        where = self._artifact(version)
        if known.artifact_uri.rstrip("/") != where:
            raise VerificationError(
                f"{self._names.model}@{number} is of {known.artifact_uri}, not of {where}."
            )
        return version

    def next_number(self, pushed: Collection[int]) -> int:
        """The number that Vertex AI is expected to give next."""
        listed = [int(version.version_id) for version in self._listed()]
        return max(super().next_number(pushed), *(number + 1 for number in [0, *listed]))

    def orphan(self, digest: str) -> int | None:
        """A version of this content that Vertex AI has and the registry has not, after a crash."""
        present = set(self.numbers())
        label = f'labels.{DIGEST_LABEL}="{_label(digest)}"'
        found = [int(version.version_id) for version in self._listed(label)]
        return next((number for number in sorted(found) if number not in present), None)

    def sweep(self) -> None:
        """Removes artifacts that belong to no version."""
        listed = self.objects.list(f"{self._name}/artifacts")
        found = {"/".join(name.split("/")[1:3]) for name in listed}
        if len(found) == len(self.numbers()):
            return
        for folder in sorted(found - {self.folder(version) for version in self.versions()}):
            self._remove_folder(folder)

    def discard_orphans(self) -> None:
        """Removes versions that pushes left on Vertex AI when they died and were not repeated."""
        present = set(self.numbers())
        for version in self._listed(f"labels.{DIGEST_LABEL}:*"):
            only_default = set(version.version_aliases) <= {"default"}
            if int(version.version_id) not in present and not version.version_aliases:
                self._delete(int(version.version_id))
            elif int(version.version_id) not in present and not only_default:
                raise RegistryError(
                    f"{self._names.model}@{version.version_id} is no version of this registry, and "
                    f"has the aliases {', '.join(version.version_aliases)}. Remove it by hand."
                )

    def _publish(self, version: Version) -> None:
        """Tells Vertex AI of a version whose files are proved."""
        number = self.orphan(version.digest)
        if number is None:
            number = self._upload(version)
        if number in self._taken():
            raise RegistryError(
                f"Vertex AI gave the number {number}, which the history knows: {self._names.model} "
                "was deleted and made anew by somebody. Push under another name."
            )
        if number != version.number:
            raise Renumbered(
                f"Vertex AI numbered the version {number} instead of {version.number}. Repeat the "
                "command: the upload is taken up."
            )

    def _upload(self, version: Version) -> int:
        name = self._names.model
        request: dict[str, Any] = {
            "parent": self._names.parent,
            "model": {
                "display_name": self._name,
                "version_description": f"{version.reason} (by {version.who}; {version.digest})",
                "artifact_uri": self._artifact(version),
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
        self._keep()
        operation = self._client.models("upload_model", **request)
        answer = self._client.wait(operation, "upload the version", self._keep)
        return int(answer.model_version_id)

    def _withdraw(self, version: Version) -> None:
        self._delete(version.number)

    def _delete(self, number: int) -> None:
        name = f"{self._names.model}@{number}"
        operation = self._client.models("delete_model_version", name=name)
        if operation is not None:
            self._client.wait(operation, f"delete version {number}", self._keep)

    def _taken(self) -> set[int]:
        present, removed = self._manifests()
        return present | removed

    def _listed(self, expression: str = "") -> list[Any]:
        name = self._names.model
        found = self._client.models("list_model_versions", name=name, filter=expression)
        return list(found or ())

    def _artifact(self, version: Version) -> str:
        return self.objects.uri(f"{self._name}/{self.folder(version)}")


class VertexRegistry(RemoteRegistry):
    """Versions of the model `name` on Vertex AI. Connects with the first question, not before."""

    _store: VertexStore

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
        super().__init__(os.curdir, name, keys)
        keys = Keys.from_environment() if keys is None else keys
        settings = VertexSettings.from_environment() if settings is None else settings
        names = Names.of(project, location, name, settings)
        self.client = VertexClient(location, settings, clock)
        store = VertexStore(
            Objects(names.staging, storage), name, keys, self.client, names, settings
        )
        pointer = VertexPointer(self.client, names, settings, self._keep)
        self._compose(store, pointer, keys, clock)

    def push(
        self,
        source: str | os.PathLike[str],
        *,
        metrics: Mapping[str, Any],
        lineage: Mapping[str, Any],
        reason: str,
        who: str,
        make_live: bool = True,
        dry_run: bool = False,
    ) -> Version:
        """Adds the model in folder `source` as the next version of the parent model.

        Raises:
            RegistryError: `source` is no SavedModel; another change does not end; Vertex AI or
                Cloud Storage refuses.
        """

        def once() -> Version:
            return super(VertexRegistry, self).push(
                source,
                metrics=metrics,
                lineage=lineage,
                reason=reason,
                who=who,
                make_live=make_live,
                dry_run=dry_run,
            )

        with contextlib.suppress(Renumbered):
            return once()
        return once()

    def gc(self, keep: int = 5, *, reason: str, who: str, dry_run: bool = False) -> tuple[int, ...]:
        """Removes versions without a role other than the newest `keep`, from Vertex AI too.

        Raises:
            RegistryError: `keep` is negative, or Vertex AI refuses.
        """
        removed = super().gc(keep, reason=reason, who=who, dry_run=dry_run)
        if not dry_run:
            with self._changes.held(who):
                self._store.discard_orphans()
        return removed

    def _described(
        self,
        files: tuple[File, ...],
        metrics: Mapping[str, Any],
        lineage: Mapping[str, Any],
        reason: str,
        who: str,
    ) -> Version:
        version = super()._described(files, metrics, lineage, reason, who)
        if version.already_present:
            return version
        orphan = self._store.orphan(version.digest)
        return version if orphan is None else dataclasses.replace(version, number=orphan)

    def _keep(self) -> None:
        changes = self._changes
        if isinstance(changes, BucketChanges) and changes.keep is not None:
            changes.keep.check()


def _label(text: str) -> str:
    """A text as a label's value: 63 small letters, digits, `-` and `_`."""
    return re.sub(r"[^a-z0-9_-]", "-", text.lower())[:63]
