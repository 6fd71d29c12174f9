"""Every step of the workflows and of Cloud Build, carried out with its edge faked."""

import json
import shutil
import subprocess

import pytest

from pipeline.ci_diff import MARK
from tests.ci import fake_tool
from tests.ci.steps import ROOT, Runner, cloud_build_steps, github_steps, present

STEPS = {step.key: step for step in github_steps()}
CLOUD_STEPS = {step.key.partition(": ")[2]: step for step in cloud_build_steps()}
IMAGE = "europe-docker.pkg.dev/p/r/cortexflow"
CPU, GPU = (f"{IMAGE}@{fake_tool.DIGESTS[target]}" for target in ("cpu", "gpu"))
RUN = "workflows/run.yml: run: "
VALUES = {
    "github.token": "job-token",
    "github.repository": "o/r",
    "github.event.pull_request.number": "7",
    "inputs.preset || vars.PRESET || 'quickstart'": "quickstart",
    "inputs.target || vars.TARGET || 'vertex'": "kubeflow",
    "inputs.data || vars.DATA": "gs://bucket/datasets/oasis",
    "inputs.settings": "teacher.epochs=3; cluster.nodes.Teacher.cpu=8",
    "inputs.parameters": "teacher_epochs=3",
    "inputs.wait": "true",
    "inputs.keep": "true",
    "inputs.image": "",
    "inputs.gpu_image": "",
    "vars.IMAGE": IMAGE,
    "vars.KUBEFLOW_BACKEND": "kubeflow://kfp.example.org/team",
    "vars.VERTEX_BACKEND": "",
    "vars.PIPELINE_ROOT": "gs://bucket/runs",
    "vars.PIPELINE_REPOSITORY": "https://europe-kfp.pkg.dev/p/pipelines",
    "vars.REGISTRY": "gs://bucket/registry",
    "vars.NODE_SERVICE_ACCOUNT": "nodes@p.iam.gserviceaccount.com",
    "steps.backend.outputs.uri": "kubeflow://kfp.example.org/team",
    "steps.images.outputs.cpu": CPU,
    "steps.images.outputs.gpu": GPU,
    "steps.identity.outputs.id_token": "identity-token",
    "steps.token.outputs.file": "",
}
executed: set[str] = set()


@pytest.fixture
def runner(tmp_path):
    return Runner(tmp_path)


def carried_out(runner, name, *, code=0, changed=None, **more):
    """Carries out a step of a workflow, and holds its exit code against the expected one."""
    executed.add(name)
    process = runner.run(STEPS[name], VALUES | (changed or {}), **more)
    assert process.returncode == code, process.stdout + process.stderr
    return process


def on_cloud_build(runner, name, *, code=0, **changed):
    executed.add(f"cloudbuild.yaml: {name}")
    values = {
        "COMMIT_SHA": "f" * 40,
        "BUILD_ID": "0a1b-2c",
        "_BASE": "main",
        "_IMAGE": IMAGE,
        "_BACKEND": "vertex://p/europe-west4",
        "_PRESET": "quickstart",
        "_TARGET": "vertex",
        "_DATA": "gs://bucket/datasets/oasis",
        "_PIPELINE_ROOT": "gs://bucket/runs",
        "_REGISTRY": "gs://bucket/registry",
        "_SERVICE_ACCOUNT": "nodes@p.iam.gserviceaccount.com",
        "_PIPELINE_REPOSITORY": "https://europe-kfp.pkg.dev/p/pipelines",
        "_WAIT": "true",
    }
    process = runner.run_on_cloud_build(CLOUD_STEPS[name], values | changed)
    assert process.returncode == code, process.stdout + process.stderr
    return process


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("actions/environment/action.yml: runs: Build the environment", "sync --locked"),
        ("workflows/checks.yml: checks: Lint", "ruff check ."),
        ("workflows/checks.yml: checks: Test", "pytest -n"),
    ],
)
def test_the_checks_are_those_of_make(runner, name, expected):
    assert expected in carried_out(runner, name).stdout


def test_a_pull_request_compiles_what_is_golden_and_tells_the_differences(runner):
    golden = runner.work / "kubeflow/golden"
    for name in ("quickstart-kubeflow", "mri-vertex"):
        (golden / f"{name}.yaml").touch()
    carried_out(runner, "workflows/pull-request.yml: compile: Compile")
    assert [call[1:5] for call in runner.calls] == [
        ["compile", "mri", "--for", "vertex"],
        ["compile", "quickstart", "--for", "kubeflow"],
    ]
    base = runner.work / "build/base/kubeflow/golden"
    base.mkdir(parents=True)
    before = fake_tool.PACKAGE.replace("NAME", "mri").replace("IMAGE", "older")
    (base / "mri-vertex.yaml").write_text(before)
    carried_out(runner, "workflows/pull-request.yml: compile: Tell the differences")
    told = (runner.work / "build/comment.md").read_text()
    assert "| Student | `image` | `older` | `latest` |" in told
    assert "`quickstart-kubeflow.yaml` is new." in told
    assert runner.summary == told


def test_without_golden_files_compiling_fails_instead_of_doing_nothing(runner):
    assert carried_out(runner, "workflows/pull-request.yml: compile: Compile", code=1).stderr


def test_a_file_that_is_no_pipeline_fails_the_comparison(runner):
    (runner.work / "build/compiled").mkdir()
    base = runner.work / "build/base/kubeflow/golden"
    base.mkdir(parents=True)
    for folder in (base, runner.work / "build/compiled"):
        (folder / "x-vertex.yaml").write_text("a: 1")
    carried_out(runner, "workflows/pull-request.yml: compile: Tell the differences", code=1)


@pytest.mark.skipif(not present("jq"), reason="jq, in which the step filters, is not installed")
@pytest.mark.parametrize("known", [None, 11])
def test_one_comment_is_written_and_then_written_anew(runner, known):
    comments = [
        {"id": 10, "user": {"login": "someone"}, "body": f"{MARK} a quotation"},
        {"id": 12, "user": {"login": "github-actions[bot]"}, "body": "of another workflow"},
    ]
    if known:
        author = {"login": "github-actions[bot]"}
        comments.append({"id": known, "user": author, "body": f"{MARK}\nolder"})
    (runner.fakes / "comments.json").write_text(json.dumps(comments))
    (runner.work / "comment.md").write_text(f"{MARK}\nnew")
    carried_out(runner, "workflows/pull-request.yml: comment: Write the comment, or write it anew")
    method, address = runner.calls[1][3:5]
    if known:
        assert (method, address) == ("PATCH", "repos/o/r/issues/comments/11")
    else:
        assert (method, address) == ("POST", "repos/o/r/issues/7/comments")


@pytest.mark.skipif(not present("jq"), reason="jq, in which the step reads, is not installed")
def test_main_builds_both_targets_and_hands_on_digests(runner):
    image = "workflows/main.yml: image: "
    carried_out(runner, f"{image}Let docker ask gcloud for tokens")
    carried_out(runner, f"{image}Start a builder")
    carried_out(runner, f"{image}Build and push")
    assert runner.outputs == {"cpu": CPU, "gpu": GPU}
    assert f"`gpu`: `{GPU}`" in runner.summary
    tags = [word for call in runner.calls for word in call if word.startswith(f"{IMAGE}:")]
    assert tags == [
        f"{IMAGE}:{'f' * 40}-cpu",
        f"{IMAGE}:main-cpu",
        f"{IMAGE}:{'f' * 40}-gpu",
        f"{IMAGE}:main-gpu",
    ]


def test_the_targets_that_are_built_are_in_the_dockerfile():
    text = (ROOT / "kubeflow/Dockerfile").read_text()
    stages = {line.split()[-1] for line in text.splitlines() if line.startswith("FROM ")}
    assert {"cpu", "gpu"} <= stages


@pytest.mark.parametrize(
    ("target", "uri"), [("kubeflow", "kubeflow://kfp.example.org/team"), ("vertex", "vertex://p/l")]
)
def test_the_backend_is_the_targets(runner, target, uri):
    changed = {
        "inputs.target || vars.TARGET || 'vertex'": target,
        "vars.VERTEX_BACKEND": "vertex://p/l",
    }
    carried_out(runner, f"{RUN}Choose the backend", changed=changed)
    assert runner.outputs == {"uri": uri}


@pytest.mark.parametrize(
    ("target", "reason"), [("vertex", "VERTEX_BACKEND is empty"), ("spark", "not spark")]
)
def test_a_backend_that_is_not_set_is_named(runner, target, reason):
    changed = {"inputs.target || vars.TARGET || 'vertex'": target}
    process = carried_out(runner, f"{RUN}Choose the backend", code=1, changed=changed)
    assert "::error::" in process.stdout
    assert reason in process.stdout


def test_an_identity_token_is_kept_where_only_the_job_reads(runner):
    carried_out(runner, f"{RUN}Keep the token in a file")
    file = runner.temporary / "kubeflow-token"
    assert runner.outputs == {"file": str(file)}
    assert file.read_text() == "identity-token"
    assert file.stat().st_mode & 0o777 == 0o600


def test_images_come_by_digest_from_the_caller_or_from_main(runner):
    carried_out(runner, f"{RUN}Find the images")
    assert runner.outputs == {"cpu": CPU, "gpu": GPU}
    given = f"{IMAGE}@sha256:{'1' * 64}"
    carried_out(runner, f"{RUN}Find the images", changed={"inputs.image": given})
    assert runner.outputs == {"cpu": given, "gpu": GPU}


def test_an_image_that_was_never_built_is_told(runner):
    (runner.fakes / "no-image").touch()
    process = carried_out(runner, f"{RUN}Find the images", code=1)
    assert "let main.yml build one" in process.stdout
    by_tag = carried_out(
        runner, f"{RUN}Find the images", code=1, changed={"inputs.image": f"{IMAGE}:latest"}
    )
    assert "no image by digest" in by_tag.stdout


def test_a_run_compiles_with_the_images_and_the_settings(runner):
    carried_out(runner, f"{RUN}Compile")
    (call,) = runner.calls
    assert call[1:7] == [
        *("compile", "quickstart", "--for", "kubeflow", "--out", "build/compiled.yaml")
    ]
    assert call[7:] == [
        *("--set", f"cluster.image={CPU}", "--set", f"cluster.gpu_image={GPU}"),
        *("--set", "teacher.epochs=3", "--set", "cluster.nodes.Teacher.cpu=8"),
    ]


def test_settings_are_data_and_no_shell(runner):
    nasty = 'a=$(touch pwned); b=`touch pwned`; c="; touch pwned; *'
    carried_out(runner, f"{RUN}Compile", changed={"inputs.settings": nasty})
    assert not list(runner.work.glob("**/pwned"))
    settings = ["a=$(touch pwned)", "b=`touch pwned`", 'c="', "touch pwned", "*"]
    assert runner.calls[0][-10:] == [word for one in settings for word in ("--set", one)]


def test_a_version_is_kept_in_artifact_registry(runner):
    (runner.work / "build/compiled.yaml").write_text(fake_tool.PACKAGE)
    carried_out(runner, f"{RUN}Keep it in Artifact Registry")
    uploaded = next(call for call in runner.calls if call[0] == "curl")
    assert uploaded[-1] == "https://europe-kfp.pkg.dev/p/pipelines"
    assert f"tags={'f' * 40}-1" in uploaded


@pytest.mark.parametrize(
    ("code", "line", "word"),
    [
        (0, "passed", "passed"),
        (2, "refused: macro AUC .61 is below .70", "refused"),
        (3, "insufficient evidence: 12 people", "insufficient evidence"),
        (1, "Teacher failed", "failed"),
    ],
)
def test_the_outcome_of_the_run_decides(runner, code, line, word):
    (runner.work / "build/compiled.yaml").write_text(fake_tool.PACKAGE)
    (runner.fakes / "submit").write_text(f"{code} {line}")
    process = carried_out(runner, f"{RUN}Submit, and let the outcome decide", code=code)
    (call,) = runner.calls
    assert call[1:5] == ["submit", "quickstart", "--on", "kubeflow://kfp.example.org/team"]
    options = dict(zip(call[5::2], call[6::2], strict=False))
    assert options["--data"] == "gs://bucket/datasets/oasis"
    assert options["--keep"] == f"{'f' * 40}-1"
    assert options["--experiment"] == "ci-workflow-dispatch"
    assert call[-1] == "--wait"
    assert f"quickstart on kubeflow: {word} (exit code {code})" in runner.summary
    assert "Run: <https://runs.example.org/42>" in runner.summary
    assert f"> {line}" in runner.summary
    assert ("::error title=quickstart on kubeflow%3A" in process.stdout) == (code != 0)


def test_a_run_that_is_not_waited_for_is_submitted_and_no_more(runner):
    (runner.work / "build/compiled.yaml").write_text(fake_tool.PACKAGE)
    (runner.fakes / "submit").write_text("0 ")
    changed = {"inputs.wait": "false", "inputs.keep": "false", "vars.NODE_SERVICE_ACCOUNT": ""}
    carried_out(runner, f"{RUN}Submit, and let the outcome decide", changed=changed)
    assert not {"--wait", "--keep", "--set"} & {*runner.calls[0]}
    assert "quickstart on kubeflow: submitted" in runner.summary


def test_cloud_build_checks_and_compares(runner):
    assert "ruff check" in on_cloud_build(runner, "checks").stdout
    (runner.work / "kubeflow/golden/quickstart-vertex.yaml").write_text(
        fake_tool.PACKAGE.replace("NAME", "quickstart").replace("IMAGE", "older")
    )
    on_cloud_build(runner, "compile")
    git = ["git", "-c", "user.name=t", "-c", "user.email=t@example.org"]
    for command in (
        ["init", "--quiet", "--initial-branch", "main"],
        ["add", "kubeflow"],
        ["commit", "--quiet", "--message", "base"],
        ["remote", "add", "origin", str(runner.work)],
    ):
        subprocess.run([*git, *command], cwd=runner.work, check=True)
    told = on_cloud_build(runner, "differences").stdout
    assert "| Student | `image` | `older` | `latest` |" in told
    told = on_cloud_build(runner, "differences", _BASE="absent").stdout
    assert "`quickstart-vertex.yaml`" in told


def test_cloud_build_builds_keeps_and_runs(runner):
    on_cloud_build(runner, "image")
    on_cloud_build(runner, "compile-with-the-image")
    assert CPU in (runner.work / "build/compiled.yaml").read_text()
    on_cloud_build(runner, "keep")
    (runner.fakes / "submit").write_text("2 refused")
    on_cloud_build(runner, "run", code=2)
    on_cloud_build(runner, "run", code=2, _TARGET="kubeflow", _BACKEND="kubeflow://h/ns")
    tools = [call[0] for call in runner.calls]
    assert tools[:4] == ["docker", "docker", "docker", "cortexflow"]
    assert sorted(tools[4:6]) == ["curl", "gcloud"]  # the two ends of a pipe
    assert tools[6:] == ["cortexflow", "cortexflow"]
    on_vertex, on_kubeflow = runner.calls[-2:]
    assert "--keep" not in on_vertex
    assert on_kubeflow[on_kubeflow.index("--keep") + 1] == "0a1b-2c"


def test_cloud_build_without_an_image_reaches_nothing(runner):
    for name in ("image", "compile-with-the-image", "keep", "run"):
        on_cloud_build(runner, name, _IMAGE="")
    assert runner.calls == []


def test_no_step_was_left_out(request):
    """Runs after the others of this file, on the worker that ran them."""
    if not present("jq"):
        pytest.skip("steps with jq were skipped")
    if request.config.option.keyword or any("::" in one for one in request.config.args):
        pytest.skip("only some tests of this file were asked for")
    assert executed == {*STEPS, *(f"cloudbuild.yaml: {name}" for name in CLOUD_STEPS)}


@pytest.mark.slow
@pytest.mark.parametrize("target", ["kubeflow", "vertex"])
def test_the_real_command_compiles_in_the_step(runner, target):
    real = shutil.which("cortexflow", path=str(ROOT / ".venv/bin"))
    assert real is not None, "make setup installs the command"
    command = runner.work / ".venv/bin/cortexflow"
    command.unlink()
    command.symlink_to(real)
    changed = {
        "inputs.target || vars.TARGET || 'vertex'": target,
        "inputs.settings": "teacher.epochs=3",
    }
    carried_out(runner, f"{RUN}Compile", changed=changed)
    from pipeline.ci_diff import read

    spec = read(runner.work / "build/compiled.yaml")
    student = spec["deploymentSpec"]["executors"]["Student_executor"]
    assert student["container"]["image"] == CPU
