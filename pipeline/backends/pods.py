"""A pod's log from Kubernetes itself, where Kubeflow Pipelines does not hand it out."""

from collections.abc import Iterator
from typing import Any

from pipeline.backends.interface import BackendError

RUN_LABEL = "pipeline/runid"  # which Kubeflow puts on every pod of a run
NODE = "workflows.argoproj.io/node-id"  # annotation: what Kubeflow's API calls the pod
CONTAINER = "main"
TIMEOUTS = (10, 60)


def lines(
    run_id: str, node: str, *, namespace: str, follow: bool, said: BackendError
) -> Iterator[str]:
    """Lines of the log of a run's pod, by the credentials of `kubectl` or of the own pod.

    Args:
        run_id: of the run.
        node: the workflow's name for the pod, or the pod's own.
        namespace: where the pods are.
        follow: until the pod has ended.
        said: why Kubeflow did not hand it out; raised again where there is no other way.

    Raises:
        BackendError: the pod is gone, or Kubernetes cannot be asked.
    """
    import urllib3
    from kubernetes.client import CoreV1Api
    from kubernetes.client.exceptions import ApiException

    core = CoreV1Api(_client(said))
    try:
        found = core.list_namespaced_pod(
            namespace, label_selector=f"{RUN_LABEL}={run_id}", _request_timeout=TIMEOUTS
        )
        names = [
            pod.metadata.name
            for pod in found.items
            if node in (pod.metadata.name, (pod.metadata.annotations or {}).get(NODE))
        ]
        if not names:
            raise BackendError(f"{said} The pod {node} is gone from Kubernetes too.") from None
        answer = core.read_namespaced_pod_log(
            names[0], namespace, container=CONTAINER, follow=follow, _preload_content=False
        )
        rest = b""
        for block in answer.stream(1 << 14):
            *whole, rest = (rest + block).split(b"\n")
            yield from (line.decode(errors="replace") for line in whole)
        if rest:
            yield rest.decode(errors="replace")
    except (ApiException, urllib3.exceptions.HTTPError) as error:
        reason = getattr(error, "reason", None) or error
        raise BackendError(f"{said} Kubernetes did not hand it out either: {reason}.") from None


def _client(said: BackendError) -> Any:
    from kubernetes import client, config

    settings = client.Configuration()
    settings.retries = 1
    try:
        config.load_incluster_config(client_configuration=settings)
    except config.ConfigException:
        try:
            config.load_kube_config(client_configuration=settings)
        except (config.ConfigException, OSError):
            raise said from None
    return client.ApiClient(settings)
