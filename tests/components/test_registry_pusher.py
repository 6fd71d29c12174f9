"""The Pusher and LiveModel nodes: by path and by URI, and only what the gate passed."""

import pytest
from tfx.types.standard_artifacts import Model, ModelBlessing, PushedModel

from components import live_model, registry_pusher
from components.decisions import write_decision
from evaluation.outcome import Check, Outcome, Refused, concluded
from registry import manifest
from registry.interface import Traffic
from registry.opening import open_registry
from tests.emulators import processes
from tests.registry.bucket.remote import BUCKET, WHY, emulated

URIS = {
    "local": "{folder}/registry",
    "bucket": f"gs://{BUCKET}/registry",
    "vertex": "vertex://research/europe-west4/student",
}


@pytest.fixture(scope="module")
def gcs():
    with emulated() as control:
        yield control


@pytest.fixture(scope="module")
def vertex():
    with processes.vertex() as control:
        yield control


@pytest.fixture
def cloud(gcs, vertex, monkeypatch, tmp_path):
    """Emulators where the environment says that the cloud is."""
    gcs.restore("empty")
    vertex(reset=True)
    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gcs.host)
    monkeypatch.setenv("GOOGLE_CLOUD_PROJECT", "research")
    monkeypatch.setenv("CORTEXFLOW_VERTEX_EMULATOR_HOST", vertex.host)
    monkeypatch.setenv("CORTEXFLOW_VERTEX_STAGING", f"gs://{BUCKET}/staging")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))


def artifact(kind, folder):
    made = kind()
    made.uri = str(folder)
    folder.mkdir(parents=True, exist_ok=True)
    return made


def exported(folder, content):
    model = artifact(Model, folder)
    (folder / "Format-Serving" / "variables").mkdir(parents=True)
    (folder / "Format-Serving" / "saved_model.pb").write_text(content)
    (folder / "Format-Serving" / "variables" / "variables.index").write_text("index")
    return model


def push(tmp_path, uri, content, blessed=True, tried_out=None):
    """Pushes a model of which the gate says that these files were tried out; None: its own."""
    run = tmp_path / content
    model = exported(run / "model", content)
    folder = run / "model" / "Format-Serving"
    digest = tried_out or manifest.content_digest(manifest.inventory(folder))
    blessing = artifact(ModelBlessing, run / "blessing")
    blessing.set_int_custom_property("blessed", int(blessed))
    checks = [Check("auc", Outcome.PASSED, 0.9)]
    write_decision(concluded(checks, details={"content": digest}), blessing.uri)
    pushed = artifact(PushedModel, run / "pushed")
    registry_pusher.Executor().Do(
        {"model": [model], "model_blessing": [blessing]},
        {"pushed_model": [pushed]},
        {"registry": uri, "model_name": "student", "classes": "Mild,Non"},
    )
    return pushed


def live(tmp_path, uri):
    model = artifact(Model, tmp_path / "baseline" / "model")
    answer = live_model.Executor().Do(
        {}, {"model": [model]}, {"registry": uri, "model_name": "student", "version": ""}
    )
    return answer.output_artifacts["model"].artifacts, tmp_path / "baseline" / "model"


@pytest.mark.parametrize("kind", URIS)
def test_pushes_by_uri_and_reads_the_live_version_back(cloud, tmp_path, kind):
    uri = URIS[kind].format(folder=tmp_path)
    found, folder = live(tmp_path, uri)
    assert (len(found), folder.exists()) == (0, False)  # nothing is live: no baseline
    first = push(tmp_path, uri, "one")
    push(tmp_path, uri, "two")
    assert first.get_string_custom_property("pushed_version") == "1"
    destination = first.get_string_custom_property("pushed_destination")
    assert destination.startswith("gs://" if kind != "local" else str(tmp_path))
    registry = open_registry(uri, "student")
    assert registry.traffic() == Traffic(2)
    assert registry.show(1).lineage["classes"] == ["Mild", "Non"]
    registry.rollback(**WHY)
    (baseline,), folder = live(tmp_path, uri)
    assert (folder / "Format-Serving" / "saved_model.pb").read_text() == "one"
    assert baseline.custom_properties["version"].int_value == 1
    assert baseline.custom_properties["digest"].string_value == registry.show(1).digest


def test_what_the_gate_refused_is_not_pushed(tmp_path):
    with pytest.raises(Refused, match="did not pass"):
        push(tmp_path, str(tmp_path / "registry"), "bad", blessed=False)
    assert not (tmp_path / "registry").exists()


def test_a_model_changed_after_its_trial_is_not_pushed(tmp_path):
    with pytest.raises(Refused, match="not the one that the serving check tried out"):
        push(tmp_path, str(tmp_path / "registry"), "other", tried_out="0" * 64)
    assert not (tmp_path / "registry").exists()
