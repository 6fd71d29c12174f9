"""`submit`, `schedule`, `runs`, `show`, `logs`, `stop` before emulated services, and here."""

import json
import re
import time

import pytest
from typer.testing import CliRunner

from cli.main import app
from pipeline.backends import datasets
from tests.emulators import processes
from tests.pipeline.backends import tiny

VERTEX = "vertex://research/europe-west4"
FAST = ["--wait", "--interval", "0.1"]


@pytest.fixture(scope="module")
def servers():
    with processes.kubeflow() as kfp, processes.vertex() as vertex:
        yield kfp, vertex


@pytest.fixture
def services(servers, monkeypatch):
    kfp, vertex = servers
    kfp(reset=True)
    vertex(reset=True)
    monkeypatch.setenv("CORTEXFLOW_VERTEX_EMULATOR_HOST", vertex.host)
    monkeypatch.setenv("KUBECONFIG", "/nowhere")
    return kfp, vertex


@pytest.fixture(params=["kubeflow", "vertex"])
def place(request, services):
    """Address of an emulated service."""
    return {"kubeflow": f"kubeflow+http://{services[0].address}", "vertex": VERTEX}[request.param]


@pytest.fixture
def kubeflow(services):
    return f"kubeflow+http://{services[0].address}"


@pytest.fixture
def cortexflow():
    """Runs the command in this process, on a wide screen that is no terminal."""
    runner = CliRunner(env={"COLUMNS": "220", "TERMINAL_WIDTH": "220"})
    return lambda *words: runner.invoke(app, [str(word) for word in words], prog_name="cortexflow")


@pytest.fixture
def spec(tmp_path):
    """Writes a compiled pipeline; gives the options with which it is submitted."""

    def write(text):
        path = tmp_path / "pipeline.yaml"
        path.write_text(text)
        return ["--spec", path, "--pipeline-root", "gs://bucket/root"]

    return write


def run_of(answer):
    return re.search(r"^run (\S+)$", answer.output, re.MULTILINE)[1]


@pytest.mark.parametrize(
    ("text", "code", "last"),
    [
        (tiny.package(), 0, "passed"),
        (tiny.refusing(), 2, "refused: StopOnRefusal: "),
        (tiny.refusing("StopOnBadData"), 2, "refused: StopOnBadData: "),
        (
            tiny.refusing("StopOnInsufficientEvidence"),
            3,
            "insufficient evidence: StopOnInsufficientEvidence: ",
        ),
        (tiny.breaking(), 1, "failed: Teacher: "),
    ],
    ids=["passed", "refused", "bad data", "insufficient", "broken"],
)
def test_waiting_ends_with_the_run_s_exit_code_and_its_reason(
    cortexflow, place, spec, text, code, last
):
    answer = cortexflow("submit", "quickstart", "--on", place, *spec(text), *FAST)
    assert answer.exit_code == code, answer.output
    assert answer.output.splitlines()[-1].startswith(last)
    assert "#/runs/details/" in answer.output or "pipelines/runs/" in answer.output


def test_each_node_that_changes_is_a_line(cortexflow, kubeflow, spec):
    answer = cortexflow("submit", "quickstart", "--on", kubeflow, *spec(tiny.refusing()), *FAST)
    assert re.search(r"✓ ModelGate +ran +\d+\.\d s", answer.output)
    assert re.search(r"✗ StopOnRefusal +failed .*no better than the prior", answer.output)
    assert re.search(r"– RegistryPusher +skipped", answer.output)


def test_a_run_that_is_stopped_exits_with_130(cortexflow, place, spec, tmp_path):
    told = cortexflow(
        "submit", "quickstart", "--on", place, *spec(tiny.waiting(tmp_path / "never"))
    )
    assert told.exit_code == 0, told.output
    run_id = run_of(told)
    answer = cortexflow("stop", run_id, "--on", place)
    assert "is being stopped" in answer.output

    def status():
        return cortexflow("show", run_id, "--on", place).output.splitlines()[-1]

    assert tiny.until(status, lambda line: line == "stopped", "stopped run")


def test_waiting_for_a_run_that_somebody_stops(cortexflow, kubeflow, spec, tmp_path, monkeypatch):
    from pipeline.backends import following, opening

    class Stopping(following._Clock):
        """Somebody stops the run while one waits."""

        def sleep(self, seconds):
            backend = opening.open_cluster(kubeflow)
            backend.stop(opening.named_run(backend, "latest"))
            time.sleep(0.1)

    monkeypatch.setattr(following.follow, "__kwdefaults__", _defaults(Stopping()))
    text = tiny.waiting(tmp_path / "never")
    answer = cortexflow("submit", "quickstart", "--on", kubeflow, *spec(text), *FAST)
    assert answer.exit_code == 130
    assert answer.output.splitlines()[-1] == "stopped"


def test_ctrl_c_leaves_the_run_alone(cortexflow, kubeflow, spec, tmp_path, monkeypatch):
    from pipeline.backends import following

    class Interrupted(following._Clock):
        def sleep(self, seconds):
            raise KeyboardInterrupt

    monkeypatch.setattr(following.follow, "__kwdefaults__", _defaults(Interrupted()))
    signal = tmp_path / "go"
    text = tiny.waiting(signal)
    answer = cortexflow("submit", "quickstart", "--on", kubeflow, *spec(text), *FAST)
    assert answer.exit_code == 130
    assert "The run goes on; end it with: cortexflow stop" in answer.output
    signal.touch()


def test_a_wait_that_is_too_short_says_that_the_run_goes_on(cortexflow, kubeflow, spec, tmp_path):
    signal = tmp_path / "go"
    text = tiny.waiting(signal)
    answer = cortexflow(
        "submit", "quickstart", "--on", kubeflow, *spec(text), *FAST, "--timeout", "0"
    )
    assert answer.exit_code == 1
    assert "has not ended after 0 minutes. It goes on: cortexflow show" in answer.output
    signal.touch()


def _defaults(clock):
    from pipeline.backends import following

    return {**following.follow.__kwdefaults__, "clock": clock}


def test_parameters_are_sent_and_labels_come_back(cortexflow, place, spec):
    options = ["--param", "word=hola", "--label", "commit=abc", "--name", "trial", "--no-cache"]
    answer = cortexflow(
        "submit", "quickstart", "--on", place, *spec(tiny.package()), *options, *FAST
    )
    assert answer.exit_code == 0, answer.output
    shown = cortexflow("show", run_of(answer), "--on", place).output
    assert "trial" in shown
    assert "commit=abc" in shown
    listed = cortexflow("runs", "--on", place).output
    assert run_of(answer) in listed
    assert "passed" in listed
    logged = cortexflow("logs", "latest", "First", "--on", place)
    assert logged.output.splitlines()[0] == ("hola" if "kubeflow" in place else "First: ran")


def test_a_version_is_kept_and_run(cortexflow, kubeflow, spec):
    answer = cortexflow(
        "submit", "quickstart", "--on", kubeflow, *spec(tiny.package()), "--keep", "v1", *FAST
    )
    assert answer.exit_code == 0, answer.output
    assert re.search(r"^version v1: http://\S+/version/", answer.output, re.MULTILINE)


def test_the_dry_run_sends_nothing(cortexflow, services, kubeflow, spec):
    services[0]()
    answer = cortexflow(
        "submit",
        "quickstart",
        "--on",
        kubeflow,
        *spec(tiny.package()),
        "--param",
        "epochs=7",
        "--experiment",
        "trials",
        "--dry-run",
    )
    assert answer.exit_code == 0, answer.output
    assert re.search(r"epochs +7 +given", answer.output)
    assert re.search(r"word +hello", answer.output)
    assert re.search(r"First +2 +4 GB +registry.test/tiny:1", answer.output)
    assert "gs://bucket/root" in answer.output
    assert services[0]()["calls"] == []


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--param", "wrod=x"], "no parameter 'wrod'. Did you mean word?"),
        (["--param", "epochs=many"], "epochs is a NUMBER_INTEGER (received 'many')"),
        (["--param", "epochs"], "needs the form name=value (received 'epochs')"),
        (["--data", "gs://bucket/data"], "takes no dataset. Leave out --data"),
        (["--label", "commit"], "'commit' is not KEY=VALUE"),
    ],
)
def test_what_cannot_be_sent_is_told_first(cortexflow, services, kubeflow, spec, options, said):
    services[0]()
    answer = cortexflow("submit", "quickstart", "--on", kubeflow, *spec(tiny.package()), *options)
    assert answer.exit_code != 0
    assert said in answer.output
    assert services[0]()["calls"] == []


def test_a_dataset_is_copied_below_the_root_once(cortexflow, kubeflow, spec, tmp_path):
    source = dataset(tmp_path / "mine")
    document = tiny.spec()
    declared = document["root"]["inputDefinitions"]["parameters"]
    declared["dataset"] = {"parameterType": "STRING"}
    text = json.dumps(document)
    root = tmp_path / "root"
    words = ["submit", "quickstart", "--on", kubeflow, *spec(text), "--pipeline-root", root]
    missing = cortexflow(*words)
    assert missing.exit_code == 1
    assert "needs dataset. Give --data DATASET" in missing.output
    answer = cortexflow(*words, "--data", source, *FAST)
    assert answer.exit_code == 0, answer.output
    target = root / "datasets" / f"mine-{datasets.content(source)}"
    assert f"dataset {target} copied" in answer.output
    assert (target / "span-1" / "train" / "data-00000").read_text() == "records"
    again = cortexflow(*words, "--data", source)
    assert f"dataset {target} (there already)" in again.output
    (target / datasets.COMPLETE).unlink()
    assert f"dataset {target} copied" in cortexflow(*words, "--data", source).output


def dataset(folder):
    """What the copying looks at of an imported dataset."""
    (folder / "span-1" / "train").mkdir(parents=True)
    (folder / "span-1" / "train" / "data-00000").write_text("records")
    (folder / "splits.json").write_text("{}")
    (folder / "dataset.json").write_text("{}")
    return folder


def test_schedules_are_made_paused_resumed_and_removed(cortexflow, place, spec):
    words = ["schedule", "add", "quickstart", "--on", place, *spec(tiny.package())]
    answer = cortexflow(*words, "--cron", "0 3 * * *", "--name", "nightly")
    assert answer.exit_code == 0, answer.output
    made = re.search(r"^schedule (\S+)$", answer.output, re.MULTILINE)[1]

    def line():
        listed = cortexflow("schedule", "list", "--on", place).output
        return next(text for text in listed.splitlines() if made in text)

    assert re.search(r"0 3 \* \* \* +on +no +1 +nightly", line())
    assert cortexflow("schedule", "pause", made, "--on", place).exit_code == 0
    assert " paused " in line()
    assert cortexflow("schedule", "resume", made, "--on", place).exit_code == 0
    assert " on " in line()
    assert cortexflow("schedule", "delete", made, "--on", place).exit_code == 0
    assert "No schedules" in cortexflow("schedule", "list", "--on", place).output


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--cron", "0 3 * *"], "five fields (received 4"),
        (["--cron", "99 3 * * *"], "The minute of a cron expression is *"),
        (["--cron", "0 3 * * *", "--on", "local"], "keeps no schedules"),
        (["--cron", "0 3 * * *", "--on", "kubflow://host"], "Did you mean kubeflow?"),
        (["--cron", "0 3 * * *", "--on", "vertex://project"], "names no location of Vertex AI"),
        (["--cron", "0 3 * * *", "--on", "kubeflow://me:@host"], "takes no user or password"),
    ],
)
def test_schedules_that_cannot_be(cortexflow, kubeflow, words, said):
    answer = cortexflow("schedule", "add", "quickstart", "--on", kubeflow, *words)
    assert answer.exit_code == 1
    assert said in answer.output


def test_options_of_clusters_are_refused_here(cortexflow):
    answer = cortexflow("submit", "quickstart", "--on", "local", "--experiment", "x", "--no-cache")
    assert answer.exit_code == 2
    assert "--experiment, --no-cache" in answer.output


def test_the_environment_says_where(cortexflow, kubeflow, monkeypatch):
    monkeypatch.setenv("CORTEXFLOW_BACKEND", kubeflow)
    assert f"No runs at {kubeflow} yet" in cortexflow("runs").output
    answer = cortexflow("logs", "latest")
    assert answer.exit_code == 1
    assert "There are no runs at" in answer.output
