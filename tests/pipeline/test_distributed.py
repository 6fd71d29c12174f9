"""Distributed jobs: manifests by schema and golden text, and the hand-over to who runs them."""

import json
import os
import signal
import sys
import threading
from pathlib import Path
from types import SimpleNamespace

import jsonschema
import kubernetes_validate
import pytest
import yaml

from components import distributed_training, training_jobs
from components.distributed_training import completed, hand_over
from components.training_jobs import State, TrainingJobError, Unreachable, state_of
from pipeline import distributed, presets
from pipeline.cluster import NodeResources
from pipeline.config import ConfigError, with_overrides
from tests.emulators.kubernetes_cluster import kubernetes
from trainer.errors import Preempted

ROOT = Path(__file__).resolve().parents[2]
GOLDEN = ROOT / "tests/kubeflow/golden"
SCHEMA = yaml.safe_load((ROOT / "tests/kubeflow/schemas/tfjob.yaml").read_text())
TWO = (
    "execution.strategy=multi_worker",
    *(f"cluster.nodes.{node}.workers=2" for node in distributed.STAGE_OF),
)
GPUS = (
    *TWO,
    "cluster.nodes.Teacher.workers=4",
    "cluster.nodes.Teacher.accelerator=nvidia-a100",
    "cluster.nodes.Teacher.accelerators=2",
    'cluster.nodes.Teacher.cpu="16"',
    "cluster.nodes.Teacher.memory=120Gi",
    "cluster.nodes.Teacher.pool=a100",
    "cluster.gpu_image=registry.example/cortexflow-gpu:1",
    "cluster.service_account=cortexflow-pipeline",
    "cluster.volume=cortexflow-data:/srv/cortexflow",
)


def config(*settings: str):
    return with_overrides(presets.load("quickstart"), settings)


@pytest.mark.parametrize(("name", "settings"), [("cpu", TWO), ("gpu", GPUS)])
@pytest.mark.parametrize("target", ["kubeflow", "vertex"])
def test_a_job_is_as_it_was_agreed(name, settings, target):
    """The golden text; `python -m tests.pipeline.test_distributed` writes it anew."""
    made = distributed.handover(config(*settings), "Teacher", target)
    golden = GOLDEN / f"teacher-{name}-{target}.yaml"
    assert yaml.safe_load(golden.read_text()) == made


@pytest.mark.parametrize("settings", [TWO, GPUS], ids=["cpu", "gpu"])
def test_a_tfjob_satisfies_the_operator_and_kubernetes(settings):
    job = completed(distributed.tf_job(config(*settings), "Teacher"), name="a", job_uri="gs://b/c")
    jsonschema.validate(job, SCHEMA)
    for replica in job["spec"]["tfReplicaSpecs"].values():
        pod = {"apiVersion": "v1", "kind": "Pod", **replica["template"]}
        for version in ("1.32", "1.37"):
            kubernetes_validate.validate(pod, version, strict=True)
        [container] = replica["template"]["spec"]["containers"]
        assert container["name"] == "tensorflow"
        assert container["args"] == ["--job", "gs://b/c"]


def test_worker_pools_are_what_vertex_ai_takes():
    from google.cloud import aiplatform_v1

    pools = completed(distributed.worker_pool_specs(config(*GPUS), "Teacher"), name=None)
    spec = aiplatform_v1.CustomJobSpec(worker_pool_specs=pools)
    assert [pool.replica_count for pool in spec.worker_pool_specs] == [1, 3]
    kind = spec.worker_pool_specs[0].machine_spec.accelerator_type
    assert kind == aiplatform_v1.AcceleratorType.NVIDIA_TESLA_A100


@pytest.mark.parametrize(
    ("row", "machine"),
    [
        ({"cpu": "4", "memory": "16Gi"}, "n1-highmem-4"),
        ({"cpu": "3500m", "memory": "15Gi"}, "n1-standard-4"),
        ({"cpu": "20", "memory": "64G", "accelerator": "nvidia-t4"}, "n1-standard-32"),
        ({"cpu": "2", "memory": "8Gi", "accelerator": "nvidia-l4"}, "g2-standard-4"),
        ({"cpu": "4", "memory": "90Gi", "accelerator": "nvidia-l4"}, "g2-standard-32"),
        (
            {"cpu": "2", "memory": "8Gi", "accelerator": "nvidia-l4", "accelerators": 2},
            "g2-standard-24",
        ),
        ({"cpu": "1", "memory": "1Gi", "accelerator": "nvidia-a100"}, "a2-highgpu-1g"),
    ],
)
def test_the_smallest_machine_that_is_large_enough(row, machine):
    assert distributed.machine(NodeResources(**row))["machine_type"] == machine


@pytest.mark.parametrize(
    "row",
    [
        {"cpu": "200", "memory": "1Gi"},
        {"cpu": "1", "memory": "1Gi", "accelerator": "nvidia-l4", "accelerators": 3},
        {"cpu": "1", "memory": "1Gi", "accelerator": "nvidia-t4", "accelerators": 8},
    ],
)
def test_a_machine_that_is_not_sold_is_refused(row):
    with pytest.raises(ConfigError, match="no machine for cpu="):
        distributed.machine(NodeResources(**row))


def test_one_worker_trains_by_itself():
    assert distributed.handover(config(), "Teacher", "kubeflow") is None
    assert distributed.handover(config(*TWO), "ModelGate", "kubeflow") is None


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (("cluster.nodes.Teacher.workers=2",), "workers=2 and execution.strategy=none"),
        (("execution.strategy=multi_worker",), "workers=1 and execution.strategy=multi_worker"),
        ((*TWO, "cluster.nodes.Student.accelerator=tpu-v5e"), "2 workers with tpu-v5e"),
    ],
)
def test_workers_that_could_not_meet_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        distributed.check(config(*settings))


def test_the_command_prints_a_job(capsys):
    assignments = [word for setting in TWO for word in ("--set", setting)]
    wanted = ["quickstart", "--node", "Student", "--name", "it", "--job", "gs://b/job.json"]
    distributed.app([*wanted, *assignments], standalone_mode=False)
    job = yaml.safe_load(capsys.readouterr().out)
    jsonschema.validate(job, SCHEMA)
    assert job["metadata"]["name"] == "it"


# ---------------------------------------------------------------- a cluster that runs the jobs


@pytest.fixture(scope="module")
def operator():
    with kubernetes() as found:
        yield found


@pytest.fixture
def cluster(operator, tmp_path, monkeypatch):
    operator.point_here(tmp_path, monkeypatch)
    return operator


def arguments(folder: Path, **custom) -> SimpleNamespace:
    """FnArgs as far as a hand-over reads them."""
    return SimpleNamespace(
        train_files=["train/*"],
        eval_files=["val/*"],
        base_model=None,
        serving_model_dir=str(folder / "model" / "Format-Serving"),
        model_run_dir=str(folder / "run"),
        custom_config={"stage": "{}", "distributed": {}, **custom},
    )


def running(program_text: str) -> dict:
    """A hand-over whose workers run a program in the trainer's place."""
    told = distributed.handover(config(*TWO), "Teacher", "kubeflow")
    for replica in told["job"]["spec"]["tfReplicaSpecs"].values():
        replica["template"]["spec"]["containers"][0]["command"] = ["python", "-c", program_text]
    return told


def test_workers_read_the_document_and_the_node_waits_for_them(cluster, tmp_path):
    text = (
        "import json, os, sys; from pathlib import Path\n"
        "from components.distributed_training import read_document\n"
        "task = json.loads(os.environ['TF_CONFIG'])['task']\n"
        "read = vars(read_document(sys.argv[-1]))\n"
        "place = Path(sys.argv[-1]).parent / (task['type'] + '.json')\n"
        "place.write_text(json.dumps(read))\n"
    )
    args = arguments(tmp_path, classes='["a","b"]')
    hand_over(args, running(text), look_seconds=0.1)
    told = vars(args) | {"custom_config": {"stage": "{}", "classes": '["a","b"]'}}
    for kind in ("chief", "worker"):
        assert json.loads((tmp_path / "model" / f"{kind}.json").read_text()) == told
    assert cluster.told[:3] == ["created", "chief 0 started", "worker 0 started"]
    # A second attempt of the node finds the job done, and starts nothing.
    hand_over(args, running(text), look_seconds=0.1)
    assert cluster.told.count("created") == 1


FAILS = (
    "import json, os, sys, time\n"
    "if json.loads(os.environ['TF_CONFIG'])['task']['type'] == 'worker':\n"
    "    print('step 1'); print('Error: the loss is NaN.', file=sys.stderr); sys.exit(1)\n"
    "time.sleep(600)\n"
)


def test_the_reason_is_that_of_the_worker_that_failed(cluster, tmp_path):
    with pytest.raises(
        TrainingJobError, match=r"-worker-0 ended with 1: Error: the loss is NaN\. TFJob"
    ):
        hand_over(arguments(tmp_path), running(FAILS), look_seconds=0.1)


def test_another_attempt_removes_the_job_that_failed(cluster, tmp_path):
    for _ in range(2):
        with pytest.raises(TrainingJobError, match="the loss is NaN"):
            hand_over(arguments(tmp_path), running(FAILS), look_seconds=0.1)
    assert [word for word in cluster.told if word in ("created", "deleted")] == [
        "created", "deleted", "created",
    ]  # fmt: skip


def test_a_worker_whose_machine_was_taken_back_is_started_again(cluster, tmp_path):
    text = (
        "import json, os, sys; from pathlib import Path\n"
        "mark = Path(sys.argv[-1]).with_suffix('.' + json.loads(os.environ['TF_CONFIG'])"
        "['task']['type'])\n"
        "sys.exit(0 if mark.exists() else (mark.touch(), 143)[1])\n"
    )
    hand_over(arguments(tmp_path), running(text), look_seconds=0.1)
    assert cluster.told.count("restarting") == 2


def test_sigterm_stops_the_workers_and_the_node(cluster, tmp_path):
    text = (
        "import signal, sys, time; from pathlib import Path\n"
        "signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))\n"
        "Path(sys.argv[-1]).with_suffix('.up').touch(); time.sleep(600)\n"
    )
    up = tmp_path / "model" / "job.up"

    def strike():
        while not up.exists():
            threading.Event().wait(0.05)
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=strike, daemon=True).start()
    with pytest.raises(Preempted) as caught:
        hand_over(arguments(tmp_path), running(text), look_seconds=0.1)
    assert caught.value.code == 143
    told = cluster.told
    assert "deleted" in told
    assert {"chief 0 ended with 143", "worker 0 ended with 143"} <= set(told)
    assert "restarting" not in told


def test_a_control_plane_that_is_away_for_a_while_is_waited_for(cluster, tmp_path):
    text = "import time; time.sleep(1.5)"
    threading.Timer(0.5, cluster.ask, ["/away?questions=5"]).start()
    hand_over(arguments(tmp_path), running(text), look_seconds=0.1)


def test_one_that_stays_away_is_an_error(cluster, tmp_path, monkeypatch):
    monkeypatch.setattr(distributed_training, "UNREACHABLE_SECONDS", 0.5)
    threading.Timer(0.5, cluster.ask, ["/away?questions=1000"]).start()
    with pytest.raises(Unreachable, match="currently unable to handle"):
        hand_over(arguments(tmp_path), running("import time; time.sleep(60)"), look_seconds=0.1)


def test_sigterm_ends_a_node_whose_control_plane_is_away(cluster, tmp_path):
    def strike():
        while "chief 0 started" not in cluster.told:
            threading.Event().wait(0.05)
        cluster.ask("/away?questions=100000")
        os.kill(os.getpid(), signal.SIGTERM)

    threading.Thread(target=strike, daemon=True).start()
    with pytest.raises(Preempted):
        hand_over(arguments(tmp_path), running("import time; time.sleep(60)"), look_seconds=0.1)


def test_a_job_that_the_operator_refuses_is_told_with_its_words(cluster, tmp_path):
    told = running("pass")
    told["job"]["spec"]["runPolicy"]["cleanPodPolicies"] = "All"
    with pytest.raises(TrainingJobError, match="'cleanPodPolicies' was unexpected"):
        hand_over(arguments(tmp_path), told, look_seconds=0.1)


def test_a_job_that_somebody_deletes_is_an_error(cluster, tmp_path):
    jobs = training_jobs.KubeflowJobs()
    name = distributed_training.job_name(str(tmp_path / "model" / "job.json"))
    threading.Timer(1.0, jobs.stop, [name]).start()
    with pytest.raises(TrainingJobError, match="was deleted by somebody"):
        hand_over(arguments(tmp_path), running("import time; time.sleep(60)"), look_seconds=0.1)


def test_the_newest_condition_counts():
    conditions = [
        {"type": "Created", "status": "True"},
        {"type": "Running", "status": "False"},
        {"type": "Restarting", "status": "True", "message": "one"},
    ]
    assert state_of({"conditions": conditions}) == State("pending", "restarting")
    assert state_of({}) == State("pending")


@pytest.mark.parametrize("text", ["", "[]", '{"format": 2, "fn_args": {}}', '{"format": 1}'])
def test_a_document_of_another_kind_is_refused(tmp_path, text):
    (tmp_path / "job.json").write_text(text)
    with pytest.raises(TrainingJobError, match="No job document"):
        distributed_training.read_document(str(tmp_path / "job.json"))


def test_a_worker_without_its_document_ends_with_one_line(tmp_path, capsys):
    with pytest.raises(SystemExit) as caught:
        distributed_training.main(["--job", str(tmp_path / "none.json")])
    assert caught.value.code == 1
    [line] = capsys.readouterr().err.splitlines()
    assert line.startswith("Error: No job document")


if __name__ == "__main__":
    for name, settings in {"cpu": TWO, "gpu": GPUS}.items():
        for target in ("kubeflow", "vertex"):
            made = distributed.handover(config(*settings), "Teacher", target)
            file = GOLDEN / f"teacher-{name}-{target}.yaml"
            file.write_text(yaml.safe_dump(made, sort_keys=False))
            print(file, file=sys.stderr)
