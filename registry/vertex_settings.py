"""How versions are deployed on Vertex AI: settings with defaults, from the environment."""

import dataclasses
import os
import re
from collections.abc import Mapping
from typing import Any

from registry.interface import RegistryError

PREFIX = "CORTEXFLOW_VERTEX_"

# Google's prebuilt container with TensorFlow Serving; it reads a SavedModel from `gs://`.
# https://cloud.google.com/vertex-ai/docs/predictions/pre-built-containers
IMAGE = "us-docker.pkg.dev/vertex-ai/prediction/tf2-cpu.2-15:latest"

_MODEL = re.compile(r"[a-z_][a-z0-9_-]{0,62}")
_ENDPOINT = re.compile(r"[a-z]([a-z0-9-]{0,61}[a-z0-9])?|[0-9]{1,19}")
_LOOPBACK = re.compile(r"(127\.0\.0\.1|localhost|\[::1\]):[0-9]{1,5}")


@dataclasses.dataclass(frozen=True)
class VertexSettings:
    """Settings of one registry; each is read from `CORTEXFLOW_VERTEX_` and its name.

    Attributes:
        staging: `gs://` folder for artifacts and the history; empty: `gs://PROJECT-cortexflow`.
        endpoint: id of the endpoint; empty: the model's name, with `-` for `_`. It is created when
            it is absent.
        machine_type: of the nodes that serve.
        min_replicas, max_replicas: nodes for each deployed version.
        image: serving container; what it must answer is in docs/vertex.md.
        service_account: that the nodes run as; empty: the project's default.
        deploy_timeout: seconds that one upload or deployment may take.
        emulator_host: HOST:PORT of an emulator on loopback, without encryption or credentials.
    """

    staging: str = ""
    endpoint: str = ""
    machine_type: str = "n1-standard-2"
    min_replicas: int = 1
    max_replicas: int = 1
    image: str = IMAGE
    service_account: str = ""
    deploy_timeout: float = 3600.0
    emulator_host: str = ""

    def __post_init__(self) -> None:
        if not 1 <= self.min_replicas <= self.max_replicas:
            raise RegistryError(
                "A version is served by 1 node or more, up to max_replicas (received "
                f"{self.min_replicas} to {self.max_replicas})."
            )
        if self.emulator_host and not _LOOPBACK.fullmatch(self.emulator_host):
            raise RegistryError(
                "An emulator is reached on loopback only, since nothing is encrypted (received "
                f"{self.emulator_host!r}). Unset {PREFIX}EMULATOR_HOST for the cloud."
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "VertexSettings":
        """The settings that the environment gives; what is unset or empty has its default.

        Raises:
            RegistryError: a value is no number where one is needed, or out of bounds.
        """
        given = os.environ if environment is None else environment
        values: dict[str, Any] = {}
        for name, default in dataclasses.asdict(cls()).items():
            text = given.get(PREFIX + name.upper(), "")
            if not text:
                continue
            try:
                values[name] = type(default)(text)
            except ValueError:
                raise RegistryError(
                    f"{PREFIX}{name.upper()} is a number (received {text!r})."
                ) from None
        return cls(**values)


@dataclasses.dataclass(frozen=True)
class Names:
    """Full names of what one registry uses on Vertex AI.

    Attributes:
        parent: `projects/P/locations/L`.
        model: the one parent model of all versions.
        endpoint: where they are deployed.
        staging: `gs://` folder for artifacts and the history.
    """

    parent: str
    model: str
    endpoint: str
    staging: str

    @classmethod
    def of(cls, project: str, location: str, model: str, settings: VertexSettings) -> "Names":
        """Derives the names, equal each time, so that a repeated command finds what is there.

        Raises:
            RegistryError: the model's or endpoint's name is none that Vertex AI allows.
        """
        if not _MODEL.fullmatch(model):
            raise RegistryError(
                "A model on Vertex AI has up to 63 small letters, digits, '_' and '-', and starts "
                f"with a letter (received {model!r}). Choose such a name."
            )
        endpoint = settings.endpoint or model.strip("_").replace("_", "-")
        if not _ENDPOINT.fullmatch(endpoint):
            raise RegistryError(
                f"{endpoint!r} is no endpoint's id: small letters, digits and '-'. Set "
                f"{PREFIX}ENDPOINT."
            )
        parent = f"projects/{project}/locations/{location}"
        return cls(
            parent,
            f"{parent}/models/{model}",
            f"{parent}/endpoints/{endpoint}",
            settings.staging or f"gs://{project}-cortexflow",
        )
