"""Settings of a cluster that cannot be, and the command's own words."""

import pytest

from pipeline import presets
from pipeline.cluster import NodeResources, cpu_cores, memory_bytes
from pipeline.compiling import CompileError, _check
from pipeline.config import ConfigError, with_overrides

CONFIG = presets.load("quickstart")


@pytest.mark.parametrize(
    ("assignment", "told"),
    [
        ("cluster.nodes.Teacher.cpu=many", "no Kubernetes quantity; write for example 2 or 500m"),
        ("cluster.nodes.Teacher.memory=8 GB", "for example 8Gi"),
        ("cluster.nodes.Teacher.accelerator=t4", "known are none, nvidia-t4"),
        ("cluster.nodes.Techer.cpu=2", "Did you mean 'cluster.nodes.Teacher'"),
        ("cluster.nodes.Teacher.retries=99", "less than or equal to 10"),
        ("cluster.volume=/srv/data", "match pattern"),
    ],
)
def test_what_cannot_be_is_told(assignment, told):
    with pytest.raises(ConfigError, match=told):
        with_overrides(CONFIG, [assignment])


def test_a_table_names_nodes_that_there_are():
    with pytest.raises(ConfigError, match="cluster.nodes has no Nobody"):
        with_overrides(CONFIG, ['cluster.nodes={"Nobody":{"cpu":"1"}}'])


def test_what_one_target_cannot_give():
    with pytest.raises(CompileError, match="buckets are mounted at /gcs/BUCKET"):
        _check(with_overrides(CONFIG, ["cluster.volume=data:/srv"]), "vertex")
    slices = with_overrides(CONFIG, ["cluster.nodes.Teacher.accelerator=tpu-v5e"])
    with pytest.raises(CompileError, match="Teacher.topology, for example 2x2"):
        _check(slices, "kubeflow")


def test_a_row_leaves_out_what_the_default_says():
    config = with_overrides(CONFIG, ["cluster.nodes.default.cpu=3"])
    assert config.cluster.resources("SchemaGen").cpu == "3"
    assert config.cluster.resources("Teacher").cpu == "4"
    assert NodeResources(cpu="1").over(NodeResources(cpu="2", memory="1Gi")) == NodeResources(
        cpu="1", memory="1Gi"
    )


def test_quantities_of_kubernetes():
    assert (cpu_cores("500m"), cpu_cores("2")) == (0.5, 2.0)
    assert (memory_bytes("8Gi"), memory_bytes("1.5G"), memory_bytes("64")) == (8 << 30, 1.5e9, 64)
