"""Kubeflow Pipelines' own client library (v2beta1), with credentials and our errors.

The library's generated services are used. Its convenience layer (`kfp.Client`) prints links, keeps
a file below the home directory, asks for the server's health when it is made and takes five seconds
to import. Nothing is imported, read or connected before the first question.
"""

import contextlib
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.backends.interface import BackendError

TIMEOUTS = (10, 60)  # seconds to connect, and for an answer
LOG_TIMEOUTS = (10, 600)  # the second: how long a followed log may be silent
TOKEN_FILE = "CORTEXFLOW_KUBEFLOW_TOKEN_FILE"  # noqa: S105 - names of variables, no secrets
CA_FILE = "CORTEXFLOW_KUBEFLOW_CA_FILE"
# What kfp's own client reads: https://www.kubeflow.org/docs/components/pipelines/
PROXY_CLIENT = (
    "KF_PIPELINES_IAP_OAUTH2_CLIENT_ID",
    "KF_PIPELINES_APP_OAUTH2_CLIENT_ID",
    "KF_PIPELINES_APP_OAUTH2_CLIENT_SECRET",
)
ACCOUNT_TOKEN = "KF_PIPELINES_SA_TOKEN_PATH"  # noqa: S105
ACCOUNT_TOKEN_PATH = "/var/run/secrets/kubeflow/pipelines/token"  # noqa: S105
HELP = "docs/running-on-clusters.md, Credentials"


class Refused(BackendError):
    """The server answers with an error; `status` is HTTP's."""

    def __init__(self, message: str, status: int):
        super().__init__(message)
        self.status = status


class KubeflowClient:
    """The services of one installation."""

    def __init__(self, host: str):
        """Connects to nothing yet.

        Args:
            host: address of the API, `https://…`, without `/apis`.
        """
        self.host = host
        self._made: dict[str, Any] = {}

    @property
    def types(self) -> Any:
        """The library, for its message types."""
        import kfp_server_api

        return kfp_server_api

    def call(self, service: str, method: str, **arguments: Any) -> Any:
        """Calls a method of a service.

        Args:
            service: for example `RunService`.
            method: the generated method's name.
            arguments: as the method takes them.

        Raises:
            BackendError: the server refuses, or cannot be reached.
        """
        with self._asking(method.rpartition("_service_")[2].replace("_", " ")):
            api = self._api(service)
            return getattr(api, method)(_request_timeout=TIMEOUTS, **arguments)

    def lines(self, path: str, *, follow: bool) -> Iterator[str]:
        """Lines of a text that the server streams.

        Raises:
            BackendError: as `call`.
        """
        import urllib3

        client = self._client()
        headers: dict[str, str] = {}
        query = [("follow", "true")] if follow else []
        with self._asking("read the log"):
            client.update_params_for_auth(headers, query, ["Bearer"])
            answer = client.rest_client.pool_manager.request(
                "GET",
                self.host + path,
                fields=query,
                headers=headers,
                preload_content=False,
                timeout=urllib3.Timeout(connect=LOG_TIMEOUTS[0], read=LOG_TIMEOUTS[1]),
            )
            if answer.status != 200:
                error = self.types.ApiException(answer.status, answer.reason)
                error.body = answer.data
                raise error
            rest = b""
            try:
                for block in answer.stream(1 << 14):
                    *whole, rest = (rest + block).split(b"\n")
                    yield from (line.decode(errors="replace") for line in whole)
            finally:
                answer.release_conn()
            if rest:
                yield rest.decode(errors="replace")

    def _api(self, service: str) -> Any:
        if service not in self._made:
            self._made[service] = getattr(self.types, f"{service}Api")(self._client())
        return self._made[service]

    def _client(self) -> Any:
        if "client" not in self._made:
            self._made["client"] = self.types.ApiClient(self._configuration())
        return self._made["client"]

    def _configuration(self) -> Any:
        """Where the server is and how one is known there; the token is read anew for each call."""
        settings = self.types.Configuration(host=self.host)
        settings.retries = 1
        if os.environ.get(CA_FILE):
            settings.ssl_ca_cert = os.environ[CA_FILE]
        given = os.environ.get(TOKEN_FILE) or os.environ.get(ACCOUNT_TOKEN)
        if not given and os.environ.get(PROXY_CLIENT[0]):
            from kfp.client import auth

            token, _ = auth.get_auth_token(*map(os.environ.get, PROXY_CLIENT))
            settings.api_key = {"authorization": token}
        elif given or Path(ACCOUNT_TOKEN_PATH).is_file():
            path = Path(given or ACCOUNT_TOKEN_PATH)

            def refresh(configuration: Any) -> None:
                configuration.api_key["authorization"] = _token(path)

            settings.refresh_api_key_hook = refresh
            settings.api_key = {"authorization": _token(path)}
        settings.api_key_prefix = {"authorization": "Bearer"}
        return settings

    @contextlib.contextmanager
    def _asking(self, what: str) -> Iterator[None]:
        """Turns the client's errors into ours."""
        import urllib3
        from google.auth.exceptions import GoogleAuthError
        from kfp_server_api import ApiException

        try:
            yield
        except ApiException as error:
            raise _refusal(self.host, what, error) from error
        except urllib3.exceptions.HTTPError as error:
            raise BackendError(
                f"Kubeflow Pipelines at {self.host} cannot be reached: {_cause(error)}. Check the "
                "address (kubeflow+http:// is for servers without encryption) and the network; "
                "repeat the command."
            ) from error
        except GoogleAuthError as error:
            raise BackendError(f"There are no credentials for {self.host}: {error}.") from error


def _token(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise BackendError(
            f"The bearer token cannot be read from {path}: {error.strerror}. Set {TOKEN_FILE} to "
            "a file that holds it."
        ) from None


def _cause(error: BaseException) -> str:
    """The innermost words of a failed connection."""
    reason = getattr(error, "reason", None)
    text = str(reason if isinstance(reason, BaseException) else error)
    return text.rpartition(">: ")[2] or text


def _refusal(host: str, what: str, error: Any) -> BackendError:
    """What the server says in its body, and what to do about it."""
    body = error.body.decode(errors="replace") if isinstance(error.body, bytes) else error.body
    try:
        document = json.loads(body or "")
        said = document.get("message") or document.get("error") or document.get("error_message")
    except (ValueError, AttributeError):
        said = None
    said = str(said or error.reason or "no reason given").strip().rstrip(".")
    if not error.status:  # how the library tells of TLS
        return BackendError(
            f"Kubeflow Pipelines at {host} cannot be reached: {said}. Give the authority that "
            f"signed its certificate in {CA_FILE}."
        )
    if error.status in (401, 403):
        advice = f"Check whom you are there, and what you may ({HELP})."
    elif error.status == 404:
        advice = f"Check the name; a page that is no API may mean another path in {host}."
    elif error.status >= 500:
        advice = "The server failed: look at its log, or repeat the command."
    else:
        advice = "Mend that and repeat the command."
    return Refused(
        f"Kubeflow Pipelines at {host} did not {what} ({error.status}): {said}. {advice}",
        error.status,
    )
