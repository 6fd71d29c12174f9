"""A Kubeflow Pipelines API server of one's own (v2beta1): it keeps what it is sent and runs it.

Run as a program: `python -m tests.emulators.kfp_api` prints the port it listens on, on loopback,
and ends with its standard input. Bodies are read by the models of the installed client library and
by nothing else: a field that they do not have, or a value of another type, is answered with 400.
Paths and meaning: https://www.kubeflow.org/docs/components/pipelines/reference/api/

`POST /control` steers it: JSON in, JSON out (`Api.control`).
"""

import base64
import json
import re
import sys
import threading
from email.parser import BytesParser
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qs, urlsplit

import kfp_server_api as kfp
import yaml

from tests.emulators import kfp_parsing
from tests.emulators.kfp_parsing import ApiError, parsed
from tests.emulators.kfp_runs import Runs

PAGE = 20


class Api:
    """The services with their state."""

    def __init__(self):
        self.lock = threading.RLock()
        self.reset()

    def reset(self) -> None:
        """Forgets everything."""
        self.runs = Runs(self.lock)
        self.experiments: dict[str, kfp.V2beta1Experiment] = {}
        self.pipelines: dict[str, kfp.V2beta1Pipeline] = {}
        self.versions: dict[str, kfp.V2beta1PipelineVersion] = {}
        self.calls: list[str] = []
        self.token: str | None = None
        self.refusals: dict[str, tuple[int, str]] = {}
        self.keeps_logs = True

    def control(self, order: dict) -> dict:
        """Carries out an order of a test.

        Args:
            order: any of `reset`: true; `token`: which every request must bear from now on;
                `advance`: seconds that the clock is moved by; `refuse`: path's pattern → [HTTP
                status, message] of the next request like it; `keeps_logs`: whether logs are here.
        """
        with self.lock:
            if order.get("reset"):
                self.reset()
            self.token = order.get("token", self.token)
            self.keeps_logs = order.get("keeps_logs", self.keeps_logs)
            self.refusals |= order.get("refuse", {})
            self.runs.clock.advance(order.get("advance", 0))
            self.runs.tick()
            calls, self.calls = self.calls, []
            return {"calls": calls}

    def answer(self, method: str, path: str, query: dict, headers, body: bytes):
        """Answers one request.

        Raises:
            ApiError: as the server would.
        """
        with self.lock:
            self.calls.append(f"{method} {path}")
            if self.token and headers.get("authorization") != f"Bearer {self.token}":
                raise ApiError(401, "Request header error: there is no user identity header.")
            for pattern, (status, message) in list(self.refusals.items()):
                if re.search(pattern, path):
                    del self.refusals[pattern]
                    raise ApiError(status, message)
        for verb, pattern, handler in ROUTES:
            match = re.fullmatch(f"/apis/v2beta1{pattern}", path)
            if match and verb == method:
                with self.lock:
                    return handler(self, query, headers, body, **match.groupdict())
        raise ApiError(404, "Not Found")

    def create_experiment(self, query, headers, body):
        given = parsed(body, "V2beta1Experiment")
        if not given.display_name:
            raise ApiError(400, "Experiment name is empty.")
        named = [
            e.display_name for e in self.experiments.values() if e.namespace == given.namespace
        ]
        if given.display_name in named:
            raise ApiError(409, f"Experiment {given.display_name} already exists.")
        given.experiment_id, given.created_at = self.runs.new_id(), self.runs.clock.now()
        self.experiments[given.experiment_id] = given
        return given

    def list_experiments(self, query, headers, body):
        return _page(query, self.experiments.values(), "V2beta1ListExperimentsResponse")

    def get_experiment(self, query, headers, body, experiment):
        if experiment not in self.experiments:
            raise ApiError(404, f"Experiment {experiment} not found.")
        return self.experiments[experiment]

    def create_pipeline(self, query, headers, body):
        given = parsed(body, "V2beta1Pipeline")
        given.pipeline_id, given.created_at = self.runs.new_id(), self.runs.clock.now()
        self.pipelines[given.pipeline_id] = given
        return given

    def list_pipelines(self, query, headers, body):
        return _page(query, self.pipelines.values(), "V2beta1ListPipelinesResponse")

    def upload_version(self, query, headers, body):
        identifier = query.get("pipelineid", "")
        if identifier not in self.pipelines:
            raise ApiError(404, f"Pipeline {identifier} not found.")
        documents = list(yaml.safe_load_all(_uploaded(headers, body)))
        spec = documents[0]
        if len(documents) > 1:
            spec = {"pipeline_spec": documents[0], "platform_spec": documents[1]}
        kfp_parsing.pipeline_spec(spec)
        made = kfp.V2beta1PipelineVersion(
            pipeline_id=identifier,
            pipeline_version_id=self.runs.new_id(),
            display_name=query.get("name"),
            created_at=self.runs.clock.now(),
            pipeline_spec=spec,
        )
        same = [v for v in self.versions.values() if v.pipeline_id == identifier]
        if made.display_name in {version.display_name for version in same}:
            raise ApiError(409, f"The version {made.display_name} already exists.")
        self.versions[made.pipeline_version_id] = made
        return made

    def list_versions(self, query, headers, body, pipeline):
        found = [v for v in self.versions.values() if v.pipeline_id == pipeline]
        return _page(query, found, "V2beta1ListPipelineVersionsResponse")

    def get_version(self, query, headers, body, pipeline, version):
        found = self.versions.get(version)
        if found is None or found.pipeline_id != pipeline:
            raise ApiError(404, f"PipelineVersion {version} not found.")
        return found

    def create_run(self, query, headers, body):
        given = parsed(body, "V2beta1Run")
        return self.runs.start(given, self._spec(given))

    def get_run(self, query, headers, body, run):
        return self.runs.get(run)

    def list_runs(self, query, headers, body):
        return _page(query, self.runs.runs.values(), "V2beta1ListRunsResponse")

    def terminate_run(self, query, headers, body, run):
        self.runs.terminate(run)
        return {}

    def read_log(self, query, headers, body, run, node):
        if not self.keeps_logs:
            raise ApiError(500, f"Failed to read logs for run {run}: pods {node!r} not found.")
        return self.runs.log(run, node, follow=query.get("follow") == "true")

    def create_recurring_run(self, query, headers, body):
        given = parsed(body, "V2beta1RecurringRun")
        return self.runs.recur(given, self._spec(given))

    def list_recurring_runs(self, query, headers, body):
        return _page(query, self.runs.recurring.values(), "V2beta1ListRecurringRunsResponse")

    def switch_recurring_run(self, query, headers, body, recurring, verb):
        self.runs.switch(recurring, enabled=verb == "enable")
        return {}

    def delete_recurring_run(self, query, headers, body, recurring):
        self.runs.forget(recurring)
        return {}

    def healthz(self, query, headers, body):
        return kfp.V2beta1GetHealthzResponse(multi_user=False)

    def _spec(self, given) -> dict:
        """The spec of a run: its own, or that of the version that it names."""
        if given.experiment_id not in self.experiments:
            raise ApiError(404, f"Experiment {given.experiment_id} not found.")
        reference = given.pipeline_version_reference
        if (given.pipeline_spec is None) == (reference is None):
            raise ApiError(400, "A run has either a pipeline spec or a pipeline version reference.")
        document = given.pipeline_spec
        if document is None:
            version = self.versions.get(reference.pipeline_version_id)
            if version is None:
                raise ApiError(404, f"PipelineVersion {reference.pipeline_version_id} not found.")
            document = version.pipeline_spec
        return kfp_parsing.pipeline_spec(document)


_ID = r"(?P<{}>[\w-]+)"
_RUN = "/runs/" + _ID.format("run")
_PIPELINE = "/pipelines/" + _ID.format("pipeline")
_RECURRING = "/recurringruns/" + _ID.format("recurring")
ROUTES = [
    ("GET", "/healthz", Api.healthz),
    ("POST", "/experiments", Api.create_experiment),
    ("GET", "/experiments", Api.list_experiments),
    ("GET", "/experiments/" + _ID.format("experiment"), Api.get_experiment),
    ("POST", "/pipelines", Api.create_pipeline),
    ("GET", "/pipelines", Api.list_pipelines),
    ("POST", "/pipelines/upload_version", Api.upload_version),
    ("GET", _PIPELINE + "/versions", Api.list_versions),
    ("GET", _PIPELINE + "/versions/" + _ID.format("version"), Api.get_version),
    ("POST", "/runs", Api.create_run),
    ("GET", "/runs", Api.list_runs),
    ("GET", _RUN, Api.get_run),
    ("POST", _RUN + ":terminate", Api.terminate_run),
    ("GET", _RUN + "/nodes/" + _ID.format("node") + "/log", Api.read_log),
    ("POST", "/recurringruns", Api.create_recurring_run),
    ("GET", "/recurringruns", Api.list_recurring_runs),
    ("POST", _RECURRING + ":(?P<verb>enable|disable)", Api.switch_recurring_run),
    ("DELETE", _RECURRING, Api.delete_recurring_run),
]


def _uploaded(headers, body: bytes) -> bytes:
    """The one file of a form."""
    head = f"Content-Type: {headers['content-type']}\r\n\r\n".encode()
    parts = BytesParser().parsebytes(head + body).get_payload()
    for part in parts if isinstance(parts, list) else []:
        if part.get_param("name", header="content-disposition") == "uploadfile":
            return part.get_payload(decode=True)
    raise ApiError(400, "The form has no uploadfile.")


def _page(query: dict, found, kind: str):
    """One page, filtered by name and namespace, newest first if so asked."""
    wanted = {p["key"]: p["string_value"] for p in kfp_parsing.predicates(query.get("filter", ""))}
    kept = [
        entry
        for entry in found
        if entry.display_name == wanted.get("display_name", entry.display_name)
        and getattr(entry, "namespace", None) in (None, query.get("namespace"))
    ]
    if query.get("sort_by") == "created_at desc":
        kept.reverse()
    try:
        start = int(base64.b64decode(query.get("page_token", "")) or 0)
    except ValueError:
        raise ApiError(400, "Invalid page token.") from None
    size = int(query.get("page_size") or PAGE)
    model = getattr(kfp, kind)
    field = next(name for name, of in model.openapi_types.items() if of.startswith("list["))
    answer = model(total_size=len(kept), **{field: kept[start : start + size]})
    if start + size < len(kept):
        answer.next_page_token = base64.b64encode(str(start + size).encode()).decode()
    return answer


class _Handler(BaseHTTPRequestHandler):
    """HTTP around `Api.answer`."""

    protocol_version = "HTTP/1.1"
    api: Api

    def do_GET(self):
        self._answer("GET")

    def do_POST(self):
        self._answer("POST")

    def do_DELETE(self):
        self._answer("DELETE")

    def log_message(self, *_):
        """Nothing: the standard output tells the port alone."""

    def _answer(self, method: str) -> None:
        url = urlsplit(self.path)
        query = {name: values[-1] for name, values in parse_qs(url.query).items()}
        body = self.rfile.read(int(self.headers.get("content-length") or 0))
        try:
            if url.path == "/control":
                found = self.api.control(json.loads(body))
            else:
                found = self.api.answer(method, url.path, query, self.headers, body)
        except ApiError as error:
            told = {"error": str(error), "code": error.status, "message": str(error), "details": []}
            self._send(json.dumps(told).encode(), error.status)
            return
        if callable(found):  # a log, line by line
            self._stream(found)
        else:
            self._send(json.dumps(kfp.ApiClient().sanitize_for_serialization(found)).encode(), 200)

    def _send(self, content: bytes, status: int) -> None:
        self.send_response(status)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def _stream(self, blocks) -> None:
        self.send_response(200)
        self.send_header("content-type", "text/plain")
        self.send_header("transfer-encoding", "chunked")
        self.end_headers()
        for block in blocks():
            if block:
                self.wfile.write(f"{len(block):x}\r\n".encode() + block + b"\r\n")
                self.wfile.flush()
        self.wfile.write(b"0\r\n\r\n")


def main() -> None:
    """Serves until the standard input ends."""
    _Handler.api = Api()
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    print(server.server_port, flush=True)
    sys.stdin.read()


if __name__ == "__main__":
    main()
