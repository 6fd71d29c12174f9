"""Dashboard and alerts ask for series that the server exports."""

import json
import re
from types import SimpleNamespace

import yaml
from prometheus_client.parser import text_string_to_metric_families

from serving.errors import CODES
from serving.metrics import Metrics
from tests.kubeflow.kustomized import MANIFESTS


def exported() -> set[str]:
    """Names of the series that the server exports, asked of it."""
    share = SimpleNamespace(live=1, canary=2, percent=10)
    engine = SimpleNamespace(
        ready=True,
        queued=0,
        models=lambda: {"m": share},
        status=lambda name: [SimpleNamespace(state="AVAILABLE", version=1)],
    )
    metrics = Metrics(engine)
    metrics.observe(SimpleNamespace(model="m", version=1, code="ok", seconds=0.1, images=1))
    metrics.answered("rest", "200")
    metrics.logged(1, 1)
    families = text_string_to_metric_families(metrics.text().decode())
    return {sample.name for family in families for sample in family.samples}


def queries() -> list[str]:
    dashboard = json.loads((MANIFESTS / "servers/cortexflow/dashboard.json").read_text())
    rules = yaml.safe_load_all((MANIFESTS / "servers/cortexflow/prometheus.yaml").read_text())
    return [
        *(target["expr"] for panel in dashboard["panels"] for target in panel["targets"]),
        *(variable["query"] for variable in dashboard["templating"]["list"]),
        *(
            rule["expr"]
            for it in rules
            if it["kind"] == "PrometheusRule"
            for group in it["spec"]["groups"]
            for rule in group["rules"]
        ),
    ]


def test_every_series_that_is_drawn_is_exported():
    drawn = {name for query in queries() for name in re.findall(r"cortexflow_\w+", query)}
    there = exported()
    assert drawn <= there, drawn - there
    # What is exported is shown, but for the parts of a histogram.
    assert there - drawn == set()


def test_codes_that_are_asked_for_are_codes():
    asked = {code for query in queries() for code in re.findall(r'code!?="(\w+)"', query)}
    assert {"internal", "out_of_distribution"} < asked
    assert asked - {"ok"} <= CODES.keys()


def test_panels_have_numbers_of_their_own_and_do_not_overlap():
    panels = json.loads((MANIFESTS / "servers/cortexflow/dashboard.json").read_text())["panels"]
    assert len({panel["id"] for panel in panels}) == len(panels)
    taken = set()
    for panel in panels:
        place = panel["gridPos"]
        assert place["x"] + place["w"] <= 24
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert not cells & taken, panel["title"]
        taken |= cells
