"""A model tried out in a process of its own: what passes, and what is a reason to refuse it."""

import json
import shutil
import socket
import sys

import numpy as np
import pytest

from registry import manifest
from schema.brain import GRID
from schema.descriptors import measure
from serving import probe
from serving.config import ProbeSettings
from serving.probe import Finding, ModelRefused, ProbeReport
from tests.serving.exports import student, swapped
from trainer import golden, input_gate_fit

STEPS = ["files", "operations", "description", "input gate", "runtimes", "SavedModel", "LiteRT"]


@pytest.fixture(scope="module")
def honest(tmp_path_factory):
    """A student with everything, its input gate too."""
    folder = student(tmp_path_factory.mktemp("exports") / "student")
    draw = np.random.default_rng(0)
    slices = draw.integers(0, 60, (90, GRID, GRID), np.uint8)
    slices[:, 20:100, 30:90] += draw.integers(90, 130, (90, 1, 1), np.uint8)
    gate = input_gate_fit.fit(*measure(slices), np.repeat(np.arange(30), 3))
    gate.save(folder / "input_gate.npz")
    golden.record(folder, 16, 1)
    return folder


@pytest.fixture
def model(honest, tmp_path):
    """A copy that may be spoilt."""
    return shutil.copytree(honest, tmp_path / "model")


def rewrite(folder, **changes):
    """Writes the golden batch anew with other arrays; None leaves one out."""
    with np.load(folder / "golden.npz") as stored:
        arrays = {**stored, **changes}
    np.savez(folder / "golden.npz", **{k: v for k, v in arrays.items() if v is not None})


def refused(folder, step, **limits):
    """The reason for which the model did not pass, all before `step` having been answered."""
    report = probe.probe(folder, **limits)
    assert [each.name for each in report.findings] == STEPS[: STEPS.index(step) + 1]
    assert [each.passed for each in report.findings[:-1]] == [True] * (len(report.findings) - 1)
    assert not report.passed
    [reason] = report.reasons
    assert reason.startswith(f"{step}: ")
    return reason.removeprefix(f"{step}: ")


def test_an_export_of_ours_passes_and_the_caller_never_loads_it(honest):
    report = probe.probe(honest)
    assert report.reasons == ()
    assert [each.name for each in report.findings] == STEPS
    assert report.digest == manifest.content_digest(manifest.inventory(honest))
    assert report.memory_bytes > 100e6
    details = {each.name: each.detail for each in report.findings}
    assert "refuses 9 of 9 made-up pictures" in details["input gate"]
    assert details["LiteRT"].startswith("int8 within 0 of export; float within")
    # In a process that has not loaded TensorFlow, trying a model out does not load it.
    program = (
        "import sys; from serving import probe; from pathlib import Path; "
        f"assert not probe.probe({str(honest.parent / 'nowhere')!r}).passed; "
        "print(*{'tensorflow', 'tfx', 'ai_edge_litert'} & set(sys.modules))"
    )
    assert answer_of(program) == ""


def answer_of(program):
    import subprocess

    ran = subprocess.run(
        [sys.executable, "-c", program],
        capture_output=True,
        text=True,
        check=True,
        cwd=probe.ROOT,
    )
    return ran.stdout.strip()


# ------------------------------------------------------------------ without running the model


def test_files_are_looked_at_before_anything_is_read(model):
    (model / "model.h5").write_bytes(b"x")
    assert "Keras runs code out of such files" in refused(model, "files")


def test_require_says_all_in_one_sentence_and_exits_as_a_gate(model):
    (model / "model.h5").write_bytes(b"x")
    with pytest.raises(ModelRefused, match=r"must not be served: files: model.h5 is no") as caught:
        probe.require(model, ProbeSettings(timeout_seconds=60))
    assert caught.value.exit_code == 2


def test_operations_are_looked_at_before_anything_is_loaded(honest, tmp_path):
    import tensorflow as tf

    def leak(images, count):
        with tf.control_dependencies([tf.io.read_file("/etc/hostname")]):
            return tf.ones([count, 3]) / 3

    folder = swapped(honest, tmp_path / "poisoned", leak)
    assert "uses ReadFile: it reads files" in refused(folder, "operations")


def test_litert_files_are_looked_at(model):
    (model / "litert" / "model.int8.tflite").write_bytes(b"x" * 100)
    reason = refused(model, "operations")
    assert reason.startswith("model.int8.tflite: it is no LiteRT file")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "serving.json is missing"),
        ("{", "cannot be read (JSONDecodeError"),
        ("[" * 100_000, "cannot be read (RecursionError"),
        ("[]", "cannot be read (TypeError"),
        ('{"format": 1, "classes": ["a"]}', "cannot be read (KeyError"),
        ({"classes": ["a", "b"]}, "does not describe the model that answered"),
        ({"classes": ["a", "b", "b"]}, "does not describe the model that answered"),
        ({"format": 2}, "does not describe the model that answered"),
        ({"input": {"image_size": 10**6, "channels": 1}}, "does not describe"),
        ({"input": {"image_size": 16, "channels": 2}}, "does not describe"),
    ],
)
def test_the_description_must_fit(model, text, message):
    path = model / "serving.json"
    if isinstance(text, dict):
        text = json.dumps(json.loads(path.read_text()) | text)
    path.unlink() if text is None else path.write_text(text)
    assert message in refused(model, "description")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images": np.array([[{}]], object)}, "it holds pickled Python objects"),
        (
            {"int8": None},
            "answers of LiteRT files ['float'], the model has files ['float', 'int8']",
        ),
        (
            {"probabilities": np.full((8, 3), np.nan, np.float32)},
            "at export the model answered with NaN or infinity (probabilities)",
        ),
    ],
)
def test_the_golden_batch_must_be_one(model, changes, message):
    rewrite(model, **changes)
    assert message in refused(model, "description")


@pytest.mark.parametrize("how", ["absent", "scores", "other", "broken", "NaN"])
def test_the_input_gate_must_score_as_at_export(model, honest, how):
    if how == "absent":
        (model / "input_gate.npz").unlink()
    if how == "scores":
        rewrite(model, gate=None)
    if how == "other":
        rewrite(model, gate=np.ones(8, np.float32))
    if how == "NaN":
        rewrite(model, gate=np.full(8, np.nan, np.float32))
    if how == "broken":
        (model / "input_gate.npz").write_bytes(b"PK")
    assert {
        "absent": "a gate and the golden batch no scores",
        "scores": "a gate and the golden batch no scores",
        "other": "it scores the golden images otherwise than at export",
        "NaN": "it scores the golden images otherwise than at export",
        "broken": "input_gate.npz is no input gate that can be used here",
    }[how] in refused(model, "input gate")


# ------------------------------------------------------------------ the process and its limits


def started_with(monkeypatch, program):
    """What is told of a process that does this instead of asking questions."""
    monkeypatch.setattr(probe, "_START", f"import sys; sys.path.insert(0, sys.argv[1]); {program}")
    return probe.probe("/nowhere", timeout=30, memory_bytes=1 << 30)


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import os; os.abort()", "the process was ended by SIGABRT"),
        ("import ctypes; ctypes.string_at(0)", "the process was ended by SIGSEGV"),
        ("import os, signal; os.kill(os.getpid(), 9)", "the process was ended by SIGKILL"),
        ("sys.exit('so it\\x1b is')", "the process ended with 1 (so it is)"),
        ("sys.exit(0)", "the process ended with 0"),
        (
            "raise MemoryError",
            "it needs more than 1 GiB of memory (serving.memory_bytes sets this)",
        ),
        (
            "import os; os.write(2, b'terminate called after std::bad_alloc'); os.abort()",
            "it needs more than 1 GiB of memory (serving.memory_bytes sets this)",
        ),
        (
            "import resource as r; r.setrlimit(r.RLIMIT_CPU, (1, 2))\nwhile True: pass",
            "it used up its processor time",
        ),
        ("print('{\"beg')", "the process ended with 0"),
    ],
)
def test_what_it_dies_of_is_a_reason(monkeypatch, program, reason):
    report = started_with(monkeypatch, program)
    assert report.findings == (Finding("start", False, reason),)


def test_the_question_at_which_it_died_is_named(monkeypatch):
    report = started_with(
        monkeypatch,
        'print(\'{"begin": "a"}\\n{"name": "a", "passed": true, "detail": ""}\\n\''
        '\'{"begin": "b"}\', flush=True); import os; os.abort()',
    )
    assert report.reasons == ("b: the process was ended by SIGABRT",)
    assert report.findings[0] == Finding("a", True, "")


def test_what_ends_too_late_is_killed_with_all_that_it_started(monkeypatch):
    program = "import subprocess, time; subprocess.Popen(['sleep', '600']); time.sleep(600)"
    monkeypatch.setattr(probe, "_START", program)
    report = probe.probe("/nowhere", timeout=1.5)
    assert report.reasons == (
        "start: it took more than 1.5 seconds (serving.timeout_seconds sets this)",
    )


def test_it_starts_empty_and_alone(monkeypatch):
    """No environment, no network, no user's path; its own folder; nothing to read from."""
    monkeypatch.setenv("SECRET_KEY", "canary")
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        program = (
            "import json, os, resource, socket; from serving import probe_child as c; "
            "alone = c._shut_in(5); reached = socket.socket().connect_ex("
            f"('127.0.0.1', {listener.getsockname()[1]})) == 0; "
            "told = [sorted(os.environ), os.getcwd(), sys.stdin.read(), alone, reached, "
            "resource.getrlimit(resource.RLIMIT_CORE)[1], "
            "any('site-packages' in p and '.local' in p for p in sys.path)]; "
            "print(json.dumps({'name': 'told', 'passed': True, 'detail': told}))"
        )
        report = started_with(monkeypatch, program)
    environment, place, standard_input, alone, reached, core, user = report.findings[0].detail
    assert "SECRET_KEY" not in environment
    assert set(environment) <= {
        "HOME", "TMPDIR", "LANG", "CUDA_VISIBLE_DEVICES", "TF_CPP_MIN_LOG_LEVEL",
        "OMP_NUM_THREADS", "MALLOC_ARENA_MAX", "LD_LIBRARY_PATH", "LC_CTYPE",
    }  # fmt: skip
    assert "cortexflow-probe-" in place
    assert (standard_input, core, user) == ("", 0, False)
    assert alone != reached, "where the system lets it, no network is left"


def test_a_report_that_is_cut_off_passes_nothing():
    whole = b'{"name": "files", "passed": true, "detail": ""}\n'
    report = probe._report(whole, b"", 0, None, 0.0, 1)
    assert isinstance(report, ProbeReport)
    assert not report.passed


# ------------------------------------------------------------------ running the model


def test_wrong_golden_answers_are_refused(model):
    with np.load(model / "golden.npz") as stored:
        answers = stored["probabilities"]
    answers[3] += np.float32([0.001, -0.001, 0])
    rewrite(model, probabilities=answers)
    reason = refused(model, "SavedModel")
    assert "differ from those at export by 0.001, at most 0.0001 is rounding" in reason


def test_truncated_variables_are_refused(model):
    [data] = (model / "variables").glob("variables.data*")
    data.write_bytes(data.read_bytes()[:-50])
    reason = refused(model, "SavedModel")
    assert "Error" in reason
    assert reason.isprintable()


@pytest.mark.slow
def test_other_litert_files_are_refused(model, tmp_path):
    other = student(tmp_path / "other", seed=5)
    shutil.copy(other / "litert" / "model.int8.tflite", model / "litert")
    assert refused(model, "LiteRT").startswith("int8: answers to the golden batch differ")


def equal(images, count):
    """An answer of operations that every export has."""
    import tensorflow as tf

    return tf.pad([[1.0]], [[0, count - 1], [0, 2]])


@pytest.mark.slow
def test_nan_weights_are_refused(honest, tmp_path):
    folder = swapped(honest, tmp_path / "model", equal, weight=float("nan"))
    assert refused(folder, "SavedModel") == "probabilities: the model answers with NaN or infinity"


@pytest.mark.slow
def test_two_signatures_that_differ_are_refused(honest, tmp_path):
    """What is evaluated (serving_default) must be what is served (predict_images)."""
    from serving import graphs

    model = shutil.copytree(honest, tmp_path / "model")
    path = model / "saved_model.pb"
    parsed = graphs.parse_saved_model(path.read_bytes())
    for function in parsed.meta_graphs[0].graph_def.library.function:
        if function.signature.name.startswith("__inference_serving_default"):
            for node in function.node_def:
                node.op = "Mul" if node.op == "RealDiv" else node.op  # by the temperature
    path.write_bytes(parsed.SerializeToString())
    reason = refused(model, "SavedModel")
    assert reason == "predict_images and serving_default give different answers"


@pytest.mark.slow
def test_a_model_that_never_ends_is_killed(honest, tmp_path):
    import tensorflow as tf

    def forever(images, count):
        most = count * 200_000_000
        [last] = tf.while_loop(lambda i: tf.less(i, most), lambda i: [i * 1], [count - count])
        return equal(images, count) + tf.cast(last, tf.float32)

    folder = swapped(honest, tmp_path / "model", forever)
    assert "it took more than 45 seconds" in refused(folder, "SavedModel", timeout=45)


@pytest.mark.slow
def test_a_model_that_wants_all_memory_is_refused(honest, tmp_path):
    import tensorflow as tf

    def greedy(images, count):
        wide = count * 12_500  # 8 × 12,500 squared floats are 40 GB
        return tf.pad([[0.0]], [[0, wide], [0, wide]])[:8, :3]

    folder = swapped(honest, tmp_path / "model", greedy)
    reason = refused(folder, "SavedModel", memory_bytes=2 << 30)
    assert reason == "it needs more than 2 GiB of memory (serving.memory_bytes sets this)"


@pytest.mark.slow
def test_what_the_list_let_through_can_still_write_nothing(honest, tmp_path, monkeypatch):
    import tensorflow as tf

    target = tmp_path / "owned"

    def write(images, count):
        with tf.control_dependencies([tf.io.write_file(str(target), "x" * 100)]):
            return tf.ones([count, 3]) / 3

    folder = swapped(honest, tmp_path / "model", write)
    blind = "from serving import allowlist as a, probe_child as c; a.graph_problems = lambda _: []"
    monkeypatch.setattr(
        probe, "_START", f"import sys; sys.path.insert(0, sys.argv[1]); {blind}; c.main()"
    )
    reason = refused(folder, "SavedModel")
    assert "File too large" in reason
    assert not target.exists() or not target.read_bytes()
