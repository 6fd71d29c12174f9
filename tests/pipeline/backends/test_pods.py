"""A pod's log from Kubernetes itself, over HTTP, where Kubeflow Pipelines keeps none."""

import http.server
import json
import threading
from urllib.parse import parse_qs, urlsplit

import pytest
import yaml

from pipeline.backends.interface import BackendError
from pipeline.backends.pods import NODE
from tests.pipeline.backends import tiny


@pytest.fixture
def kubernetes(tmp_path, monkeypatch):
    """A server with the two calls, and the file by which `kubectl` would find it."""
    pods, asked = [], []

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            url = urlsplit(self.path)
            asked.append((url.path, parse_qs(url.query)))
            if url.path.endswith("/pods"):
                body = json.dumps({"kind": "PodList", "apiVersion": "v1", "items": pods})
            else:
                body = "first line\nlast line"
            self.send_response(200)
            kind = "application/json" if url.path.endswith("/pods") else "text/plain"
            self.send_header("content-type", kind)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            """Nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    context = {"name": "c", "context": {"cluster": "c", "user": "u"}}
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": address}}],
        "users": [{"name": "u", "user": {}}],
        "contexts": [context],
        "current-context": "c",
    }
    path = tmp_path / "kubeconfig"
    path.write_text(yaml.safe_dump(config))
    # The library reads the variable when it is imported.
    monkeypatch.setattr("kubernetes.config.kube_config.KUBE_CONFIG_DEFAULT_LOCATION", str(path))
    yield pods, asked
    server.shutdown()
    server.server_close()


def test_the_pod_is_found_by_the_workflow_s_name_for_it(kubeflow, kfp, kubernetes):
    pods, asked = kubernetes
    run = tiny.ended(kubeflow, tiny.submitted(kubeflow, tiny.breaking()).id)
    kfp(keeps_logs=False)
    with pytest.raises(BackendError, match="is gone from Kubernetes too"):
        list(kubeflow.logs(run.id, "Teacher"))
    meta = {"name": "tiny-abc-impl-123", "annotations": {NODE: f"{run.id}--Teacher"}}
    pods.append({"metadata": meta})
    assert list(kubeflow.logs(run.id, "Teacher")) == ["first line", "last line"]
    assert kubeflow.get(run.id).reason == "Teacher: last line"
    path, query = asked[-2]
    assert path == "/api/v1/namespaces/kubeflow/pods"
    assert query == {"labelSelector": [f"pipeline/runid={run.id}"]}
    path, query = asked[-1]
    assert path == "/api/v1/namespaces/kubeflow/pods/tiny-abc-impl-123/log"
    assert query["container"] == ["main"]
