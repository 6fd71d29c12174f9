"""Vertex AI's own client library, over gRPC, with our errors and patient operations.

The generated clients of `google-cloud-aiplatform` are used, with the transport given: the library's
REST transport loses messages beside TFX's protobuf, and its convenience layer is configured by
globals. Nothing is imported, authenticated or connected before the first question.
"""

import contextlib
from collections.abc import Iterator
from typing import Any

from registry.interface import RegistryError
from registry.lease import Clock
from registry.parts import Keep
from registry.vertex_settings import VertexSettings

TIMEOUT = 60.0  # seconds for one call; what takes longer is an operation
PAUSES = (0.2, 0.5, 1.0, 2.0, 5.0)  # seconds between two looks at an operation; the last repeats


class VertexClient:
    """The services of one location."""

    def __init__(self, location: str, settings: VertexSettings, clock: Clock | None = None):
        """Connects to nothing yet."""
        self._location = location
        self._settings = settings
        self._clock = clock or Clock()
        self._made: dict[str, Any] = {}

    @property
    def types(self) -> Any:
        """The library's message types."""
        from google.cloud import aiplatform_v1

        return aiplatform_v1

    def models(self, method: str, **request: Any) -> Any:
        """Calls the ModelService; returns its answer, None where a thing is not found.

        Raises:
            RegistryError: the service refuses or cannot be reached.
        """
        return self._call("ModelService", method, request)

    def endpoints(self, method: str, **request: Any) -> Any:
        """Calls the EndpointService, likewise."""
        return self._call("EndpointService", method, request)

    def wait(self, operation: Any, what: str, keep: Keep) -> Any:
        """Waits for an operation; returns its response.

        Args:
            operation: as a call returned it.
            what: for the error, an infinitive.
            keep: called at each look, to keep a lock alive.

        Raises:
            RegistryError: it failed, or took longer than `deploy_timeout`.
        """
        deadline = self._clock.time() + self._settings.deploy_timeout
        looks = 0
        with self._asking(what):
            while not operation.done():
                keep()
                if self._clock.time() > deadline:
                    raise RegistryError(
                        f"Vertex AI did not {what} within {self._settings.deploy_timeout:g} s. It "
                        "may still end: look in the console, then repeat the command."
                    )
                self._clock.sleep(PAUSES[min(looks, len(PAUSES) - 1)])
                looks += 1
            return operation.result(timeout=TIMEOUT)

    def _call(self, service: str, method: str, request: dict[str, Any]) -> Any:
        from google.api_core.exceptions import NotFound

        with self._asking(f"carry out {method}"):
            try:
                client = self._client(service)
                return getattr(client, method)(request=request, timeout=TIMEOUT)
            except NotFound:
                if method.startswith(("get_", "list_", "delete_")):
                    return None
                raise

    def _client(self, service: str) -> Any:
        if service not in self._made:
            client = getattr(self.types, f"{service}Client")
            if self._settings.emulator_host:
                transport = self._emulator_transport(client)
                self._made[service] = client(transport=transport)
            else:
                host = f"{self._location}-aiplatform.googleapis.com"
                self._made[service] = client(
                    transport="grpc", client_options={"api_endpoint": host}
                )
        return self._made[service]

    def _emulator_transport(self, client: Any) -> Any:
        import grpc

        channel = grpc.insecure_channel(self._settings.emulator_host)
        return client.get_transport_class("grpc")(channel=channel)

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Turns the client's errors into ours."""
        from google.api_core.exceptions import GoogleAPIError
        from google.auth.exceptions import GoogleAuthError

        try:
            yield
        except (GoogleAPIError, GoogleAuthError) as error:
            raise RegistryError(
                f"Vertex AI did not {what}: {error}. What is live is as it was, unless the "
                "registry's history says otherwise; mend the cause and repeat the command."
            ) from error
