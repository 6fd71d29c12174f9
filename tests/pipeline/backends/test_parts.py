"""The parts of backends that ask nobody: packages, outcomes, cron, datasets, waiting, addresses."""

import pytest
import yaml

from pipeline import presets
from pipeline.backends import cron, datasets, outcome, packages, submission
from pipeline.backends.following import TRIES, Unended, follow
from pipeline.backends.interface import BackendError, Run, Task
from pipeline.backends.opening import open_backend, open_cluster, target_of
from tests.pipeline.backends import tiny


def test_nodes_are_ordered_by_names_and_by_what_they_make():
    document = tiny.spec({"A": tiny.node("true", after=["C"]), "C": tiny.node("true")})
    made = {"taskOutputArtifact": {"producerTask": "A", "outputArtifactKey": "model"}}
    document["root"]["dag"]["tasks"]["B"] = {"inputs": {"artifacts": {"model": made}}}
    assert packages.order(document) == ["C", "A", "B"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("", "holds no compiled pipeline"),
        ("- 1\n- 2\n", "holds no compiled pipeline"),
        ("{", "is no YAML"),
        ("apiVersion: v1\nkind: Pod\n", "received the keys apiVersion, kind"),
        ("!!python/object/apply:os.system ['true']", "is no YAML"),
    ],
)
def test_what_is_no_pipeline_is_refused(text, said):
    with pytest.raises(BackendError, match=said):
        packages.read(text)


def test_both_documents_are_kept():
    text = tiny.package() + "---\nplatforms:\n  kubernetes: {}\n"
    found = packages.read(text)
    assert found.platform == {"platforms": {"kubernetes": {}}}
    assert packages.of_document(found.for_kubeflow()) == found


def test_parameters_take_their_declared_types():
    document = tiny.spec()
    kinds = {"a": "NUMBER_DOUBLE", "b": "BOOLEAN", "c": "LIST", "d": "STRUCT"}
    declared = {name: {"parameterType": kind} for name, kind in kinds.items()}
    document["root"]["inputDefinitions"]["parameters"] |= declared
    package = packages.Package(document)
    given = ["epochs=5", "word=a=b", "a=1e-3", "b=true", "c=[1]", 'd={"x": 1}']
    assert packages.given_parameters(package, given) == {
        "epochs": 5,
        "word": "a=b",
        "a": 0.001,
        "b": True,
        "c": [1],
        "d": {"x": 1},
    }
    assert packages.missing(package, {"a": 1.0}) == ["b", "c", "d"]


def failed(name, error=""):
    return Task(name=name, state="failed", error=error)


@pytest.mark.parametrize(
    ("tasks", "told"),
    [
        ([], ("failed", "quota")),
        ([failed("StopOnRefusal", "why")], ("refused", "StopOnRefusal: why")),
        ([failed("StopOnBadData")], ("refused", "StopOnBadData failed; see its log")),
        # A run that broke has no verdict, whatever a gate says besides.
        ([failed("StopOnRefusal", "why"), failed("Student", "oom")], ("failed", "Student: oom")),
    ],
)
def test_the_outcome_of_a_failed_run(tasks, told):
    assert outcome.failure([Task(name="Teacher", state="ran"), *tasks], "quota") == told


@pytest.mark.parametrize(
    ("line", "told"),
    [
        ("evaluation.outcome.GateStopped: too low: 0.4", "too low: 0.4"),
        ("OSError: no space", "OSError: no space"),
        ("epoch 3 of 5: loss 0.1", "epoch 3 of 5: loss 0.1"),
    ],
)
def test_a_log_s_last_line_without_the_exception_s_place(line, told):
    assert outcome.told_by(line) == told


@pytest.mark.parametrize("good", ["0 3 * * *", "*/15 0-6,22 1,15 * 1-5", "5 4  * * 0"])
def test_cron_expressions(good):
    assert cron.checked(good) == " ".join(good.split())


@pytest.mark.parametrize(
    "bad", ["", "@daily", "60 * * * *", "* 24 * * *", "* * 0 * *", "* * * 13 *", "5-1 * * * *"]
)
def test_cron_expressions_out_of_range(bad):
    with pytest.raises(BackendError, match="cron expression"):
        cron.checked(bad)


def test_equal_data_has_an_equal_name_wherever_it_lies(tmp_path):
    def made(name, text="records"):
        folder = tmp_path / name
        (folder / "span-1" / "train").mkdir(parents=True)
        (folder / "span-1" / "train" / "data-00000").write_text(text)
        (folder / "splits.json").write_text("{}")
        (folder / "dataset.json").write_text(f'{{"source": "{folder}"}}')
        return folder

    one, two, other = made("one"), made("two"), made("other", "records of others")
    assert datasets.content(one) == datasets.content(two) != datasets.content(other)
    (tmp_path / "file").write_text("")
    with pytest.raises(BackendError, match="could not be copied"):
        datasets.place(one, str(tmp_path / "file" / "below"))


@pytest.mark.parametrize(
    ("uri", "target"),
    [
        ("local", None),
        ("kubeflow://h", "kubeflow"),
        ("kubeflow+http://h:1/ns", "kubeflow"),
        ("vertex://p/l", "vertex"),
    ],
)
def test_addresses_say_what_to_compile_for(uri, target):
    assert target_of(uri) == target
    assert open_backend(uri).uri == uri


@pytest.mark.parametrize(
    ("uri", "said"),
    [
        ("vertx://p/l", "Did you mean vertex"),
        ("/a/folder", "is no place where pipelines run"),
        ("vertex://p", "names no location"),
        ("kubeflow://", "names no host"),
        ("kubeflow://me:@host", "takes no user or password"),
        ("local", "takes no compiled pipelines"),
    ],
)
def test_addresses_that_are_none(uri, said):
    with pytest.raises(BackendError, match=said):
        open_cluster(uri)


def test_a_prefix_of_the_api_and_the_namespace_come_from_the_path():
    backend = open_cluster("kubeflow://kfp.example.org/pipeline/team-a")
    assert backend._client.host == "https://kfp.example.org/pipeline"
    assert backend._namespace == "team-a"


class Clock:
    """Time that only waiting moves."""

    def __init__(self):
        self.now = 0.0

    def monotonic(self):
        return self.now

    def sleep(self, seconds):
        self.now += seconds


class Scripted:
    """A backend that tells what it was given, one answer at each look."""

    uri = "vertex://p/l"

    def __init__(self, *answers):
        self.answers = list(answers)

    def get(self, run_id):
        answer = self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]
        if isinstance(answer, Exception):
            raise answer
        return answer


def run(status, *states):
    tasks = tuple(Task(name=f"N{n}", state=state) for n, state in enumerate(states))
    return Run(id="r", name="r", pipeline="p", status=status, tasks=tasks)


def test_every_change_is_told_once_and_a_service_may_be_away_for_a_while():
    told = []
    backend = Scripted(
        run("pending", "pending", "pending"),
        run("running", "running", "pending"),
        *[BackendError("restarting")] * (TRIES - 1),
        run("running", "running", "pending"),
        run("passed", "cached", "ran"),
    )
    ended = follow(
        backend, "r", on_task=lambda task: told.append((task.name, task.state)), clock=Clock()
    )
    assert ended.status == "passed"
    assert told == [("N0", "running"), ("N0", "cached"), ("N1", "ran")]


def test_a_service_that_stays_away_ends_the_wait():
    with pytest.raises(BackendError, match="gone"):
        follow(Scripted(run("running"), BackendError("gone")), "r", clock=Clock())


def test_waiting_ends_when_the_time_is_over():
    clock = Clock()
    with pytest.raises(Unended, match="after 2 minutes. It goes on: cortexflow show r --on vertex"):
        follow(Scripted(run("running")), "r", minutes=2, clock=clock)
    assert clock.now == 120


def test_what_outlives_a_run_lies_below_the_root_unless_somebody_says_otherwise(tmp_path):
    document = tiny.spec()
    text = {"parameterType": "STRING", "defaultValue": ""}
    document["root"]["inputDefinitions"]["parameters"] = {"touches": text, "checkpoint_root": text}
    file = tmp_path / "tiny.yaml"
    file.write_text(yaml.safe_dump(document))
    config = presets.load("quickstart")
    given = submission.prepare(
        config, "vertex", root="gs://b/root/", assignments=["touches=gs://ours"], file=file
    )
    assert given.parameters == {
        "touches": "gs://ours",
        "checkpoint_root": "gs://b/root/checkpoints",
    }
    assert submission.prepare(config, "vertex", file=file).parameters == {}
