"""A Kubernetes API server that knows TFJobs, with the training operator behind it.

What the components ask is answered: TFJobs are created, read and deleted, and pods listed by
label. Bodies are held against schemas, and what they do not know is refused. A TFJob's containers
become processes on this machine, with the `TF_CONFIG` that the operator sets, and are started again
by its rule for `restartPolicy: ExitCode`. `GET /told` lists what happened.

The pod's volumes are this machine's folders, and its image this interpreter.
"""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import jsonschema
import kubernetes_validate
import yaml

from tests.trainer.cluster import free_ports

ROOT = Path(__file__).resolve().parents[2]
SCHEMA = yaml.safe_load((ROOT / "tests/kubeflow/schemas/tfjob.yaml").read_text())
TFJOBS = re.compile(r"/apis/kubeflow\.org/v1/namespaces/([a-z0-9-]+)/tfjobs(?:/([a-z0-9-]+))?")
PODS = re.compile(r"/api/v1/namespaces/([a-z0-9-]+)/pods")
RESTARTS = 3


class Refused(Exception):
    """An answer that is no success, as Kubernetes' Status."""

    def __init__(self, code: int, message: str):
        super().__init__(message)
        self.code = code


class Worker:
    """One pod of a job: its process, started again as long as its end allows."""

    def __init__(self, job: "Job", kind: str, index: int, container: dict):
        self.job, self.kind, self.index = job, kind, index
        self.name = f"{job.name}-{kind}-{index}"
        self.log = Path(job.folder) / f"{self.name}.log"
        self.ended: int | None = None
        self.restarts = 0
        self._arguments = [*container["command"], *container["args"]]
        # The image's interpreter is this one.
        if self._arguments[0] == "python":
            self._arguments[0] = sys.executable
        self._environment = {
            **os.environ,
            **{each["name"]: each["value"] for each in container.get("env", ())},
            "PYTHONPATH": str(ROOT),
        }
        self.process: subprocess.Popen | None = None

    def start(self) -> None:
        task = {"type": self.kind, "index": self.index}
        config = {"cluster": self.job.cluster, "task": task, "environment": "cloud"}
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(
                self._arguments,
                env=self._environment | {"TF_CONFIG": json.dumps(config)},
                cwd=self.job.folder,
                stdout=log,
                stderr=log,
            )
        self.job.tell(f"{self.kind} {self.index} started")

    def look(self) -> None:
        """Notes an end, and starts again what may be."""
        if self.ended is not None or self.process.poll() is None:
            return
        code = self.process.returncode
        code = 128 - code if code < 0 else code
        self.job.tell(f"{self.kind} {self.index} ended with {code}")
        if code >= 128 and self.restarts < RESTARTS and not self.job.deleted:
            self.restarts += 1
            self.job.tell("restarting")
            self.start()
        else:
            self.ended = code

    def pod(self) -> dict:
        """As `GET pods` shows it."""
        state: dict = {"running": {}}
        if self.ended is not None:
            tail = self.log.read_text(errors="replace")[-2048:]
            reason = "Error" if self.ended else "Completed"
            message = tail if self.ended else ""
            state = {"terminated": {"exitCode": self.ended, "reason": reason, "message": message}}
        labels = {"training.kubeflow.org/job-name": self.job.name}
        return {
            "metadata": {"name": self.name, "labels": labels},
            "spec": {"containers": [{"name": "tensorflow"}]},
            "status": {
                "containerStatuses": [
                    {
                        "name": "tensorflow",
                        "image": "",
                        "imageID": "",
                        "ready": self.ended is None,
                        "restartCount": self.restarts,
                        "state": state,
                    }
                ]
            },
        }


class Job:
    """A TFJob and the operator's thread that looks after it."""

    def __init__(self, document: dict, folder: str, tell):
        self.document, self.folder, self.tell = document, folder, tell
        self.name = document["metadata"]["name"]
        self.deleted = False
        replicas = document["spec"]["tfReplicaSpecs"]
        count = sum(spec["replicas"] for spec in replicas.values())
        ports = iter(free_ports(count))
        self.cluster = {
            kind.lower(): [f"127.0.0.1:{next(ports)}" for _ in range(spec["replicas"])]
            for kind, spec in replicas.items()
        }
        self.workers = [
            Worker(self, kind.lower(), index, spec["template"]["spec"]["containers"][0])
            for kind, spec in replicas.items()
            for index in range(spec["replicas"])
        ]
        self.document["status"] = {"conditions": [_condition("Created", "")]}
        for worker in self.workers:
            worker.start()
        self.thread = threading.Thread(target=self._look_after, daemon=True)
        self.thread.start()

    def _look_after(self) -> None:
        self._hold("Running", "")
        while True:
            time.sleep(0.1)
            for worker in self.workers:
                worker.look()
            failed = [each for each in self.workers if each.ended not in (None, 0)]
            if self.deleted and all(each.ended is not None for each in self.workers):
                return
            if failed and not self.deleted:
                self._kill()
                self._hold("Failed", f"TFJob {self.name} has failed because {failed[0].name} did.")
                return
            if all(each.ended == 0 for each in self.workers):
                self._hold("Succeeded", f"TFJob {self.name} successfully completed.")
                return

    def _hold(self, kind: str, message: str) -> None:
        conditions = self.document["status"]["conditions"]
        if kind in ("Succeeded", "Failed"):
            for each in conditions:
                if each["type"] == "Running":
                    each["status"] = "False"
        conditions.append(_condition(kind, message))

    def _kill(self) -> None:
        """cleanPodPolicy Running: what still runs is removed."""
        for worker in self.workers:
            if worker.ended is None:
                worker.process.kill()
                worker.ended = 128 - worker.process.wait()

    def delete(self) -> None:
        """SIGTERM for all pods; returns when they are gone."""
        self.deleted = True
        for worker in self.workers:
            if worker.process.poll() is None:
                worker.process.send_signal(signal.SIGTERM)
        self.thread.join(timeout=120)


def _condition(kind: str, message: str) -> dict:
    return {"type": kind, "status": "True", "reason": f"TFJob{kind}", "message": message}


class Kubernetes:
    """The objects of all namespaces."""

    def __init__(self, folder: str):
        self.folder = folder
        self.jobs: dict[tuple[str, str], Job] = {}
        self.told: list[str] = []
        self.away = 0  # how many questions are still answered by 503

    def answer(self, method: str, address: str, body: dict | None) -> dict:
        """Answers one question."""
        url = urlsplit(address)
        query = parse_qs(url.query)
        if url.path == "/told":
            return {"told": self.told}
        if url.path == "/away":
            self.away = int(query["questions"][0])
            return {}
        if self.away > 0:
            self.away -= 1
            raise Refused(503, "the server is currently unable to handle the request")
        if match := PODS.fullmatch(url.path):
            wanted = unquote(query["labelSelector"][0])
            return self._pods(match[1], wanted)
        match = TFJOBS.fullmatch(url.path)
        if match is None:
            raise Refused(404, f"the server could not find {url.path}")
        if method == "POST" and match[2] is None:
            return self._create(match[1], body or {})
        job = self.jobs.get((match[1], match[2]))
        if job is None:
            raise Refused(404, f'tfjobs.kubeflow.org "{match[2]}" not found')
        if method == "DELETE":
            if (body or {}).keys() - {"propagationPolicy", "kind", "apiVersion"}:
                raise Refused(400, f"unknown fields of DeleteOptions: {sorted(body)}")
            self.told.append("deleted")
            threading.Thread(target=self._delete, args=(match[1], job)).start()
        return job.document

    def _delete(self, namespace: str, job: Job) -> None:
        job.delete()
        del self.jobs[namespace, job.name]

    def _create(self, namespace: str, body: dict) -> dict:
        try:
            jsonschema.validate(body, SCHEMA)
            for spec in body["spec"]["tfReplicaSpecs"].values():
                pod = {"apiVersion": "v1", "kind": "Pod", **spec["template"]}
                kubernetes_validate.validate(pod, "1.32", strict=True)
        except (jsonschema.ValidationError, kubernetes_validate.ValidationError) as error:
            raise Refused(422, f"TFJob is invalid: {error.message}") from None
        key = (namespace, body["metadata"]["name"])
        if key in self.jobs:
            raise Refused(409, f'tfjobs.kubeflow.org "{key[1]}" already exists')
        self.told.append("created")
        self.jobs[key] = Job(body, self.folder, self.told.append)
        return body

    def _pods(self, namespace: str, selector: str) -> dict:
        pods = [
            worker.pod()
            for (place, name), job in self.jobs.items()
            if place == namespace and selector == f"training.kubeflow.org/job-name={name}"
            for worker in job.workers
        ]
        return {"apiVersion": "v1", "kind": "PodList", "metadata": {}, "items": pods}


def _handler(kubernetes: Kubernetes) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _any(self):
            length = int(self.headers.get("Content-Length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            try:
                code, answer = 200, kubernetes.answer(self.command, self.path, body)
            except Refused as refused:
                code = refused.code
                answer = {"kind": "Status", "status": "Failure", "message": str(refused)}
            text = json.dumps(answer).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        do_GET = do_POST = do_DELETE = _any  # noqa: N815

        def log_message(self, *arguments):
            pass

    return Handler


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        kubernetes = Kubernetes(folder)
        server = ThreadingHTTPServer(("127.0.0.1", 0), _handler(kubernetes))
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        print(server.server_port, flush=True)
        sys.stdin.read()
        for job in kubernetes.jobs.values():
            for worker in job.workers:
                with contextlib.suppress(ProcessLookupError):
                    worker.process.kill()


if __name__ == "__main__":
    main()
