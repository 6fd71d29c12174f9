"""The node that tries a student out: what it publishes, and what it costs nobody's word to lift."""

import shutil

import pytest
from tfx.types.standard_artifacts import Model

from components.artifacts import ServingDecision
from components.decisions import read_decision
from components.serving_check import ServingCheck, decided
from evaluation import gate
from evaluation.outcome import Outcome
from registry import manifest
from serving.config import ProbeSettings
from serving.probe import Finding, ProbeReport
from tests.serving.exports import student, swapped


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A Model artifact's folder."""
    folder = tmp_path_factory.mktemp("model")
    student(folder / "Format-Serving")
    return folder


def answer(folder, out, **settings):
    model, decision = Model(), ServingDecision()
    model.uri, decision.uri = str(folder), str(out)
    ServingCheck.test_call(
        model=model,
        decision=decision,
        settings=ProbeSettings(**settings).model_dump_json(),
        code="",
    )
    return read_decision(str(out))


def test_an_export_of_ours_passes_and_its_content_is_on_record(honest, tmp_path):
    found = answer(honest, tmp_path)
    assert found.outcome is Outcome.PASSED, found.reasons
    tried = manifest.content_digest(manifest.inventory(honest / "Format-Serving"))
    assert found.details["content"] == tried
    assert found.details["memory_bytes"] > 0
    assert [check.name for check in found.checks][-2:] == ["SavedModel", "LiteRT"]


def test_a_poisoned_model_is_refused_for_good(honest, tmp_path):
    import tensorflow as tf

    def leak(images, count):
        with tf.control_dependencies([tf.io.read_file("/etc/hostname")]):
            return tf.ones([count, 3]) / 3

    folder = tmp_path / "poisoned"
    swapped(honest / "Format-Serving", folder / "Format-Serving", leak)
    found = answer(folder, tmp_path)
    assert found.outcome is Outcome.REFUSED
    assert "operations: " in found.reasons[0]
    assert "uses ReadFile: it reads files" in found.reasons[0]
    assert gate.SERVABLE in gate.FINAL


def test_an_old_file_beside_the_model_is_refused(honest, tmp_path):
    folder = shutil.copytree(honest, tmp_path / "model")
    (folder / "Format-Serving" / "best.keras").write_bytes(b"")
    found = answer(folder, tmp_path)
    assert found.outcome is Outcome.REFUSED
    assert found.details["content"] == ""


def test_limits_are_the_settings(honest, tmp_path):
    found = answer(honest, tmp_path, timeout_seconds=0.05)
    assert found.reasons == (
        "start: it took more than 0.05 seconds (serving.timeout_seconds sets this)",
    )


def test_a_report_becomes_a_decision():
    findings = (Finding("files", True, "4 files"), Finding("LiteRT", False, "it is cut"))
    found = decided(ProbeReport(findings, "abc", True, 1.5, 10))
    assert found.reasons == ("LiteRT: it is cut",)
    assert [(check.name, check.detail) for check in found.checks] == [
        ("files", "4 files"),
        ("LiteRT", "LiteRT: it is cut"),
    ]
    assert found.details == {"content": "abc", "isolated": True, "seconds": 1.5, "memory_bytes": 10}
