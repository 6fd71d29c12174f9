"""`cortexflow schema`, as typed."""

import pytest
from typer.testing import CliRunner

from cli.schema import app
from schema import contract
from schema.errors import CortexflowError


def typed(*words):
    return CliRunner(env={"COLUMNS": "200"}).invoke(
        app, list(map(str, words)), catch_exceptions=False
    )


@pytest.fixture
def draft(tmp_path):
    """The curated schema with another greatest label."""
    schema = contract.load()
    label = next(feature for feature in schema.feature if feature.name == "label")
    label.int_domain.max = 1
    (tmp_path / "draft.pbtxt").write_text(contract.render(schema))
    return tmp_path / "draft.pbtxt"


def test_diff_against_the_curated_schema(draft):
    result = typed("diff", draft)
    assert result.exit_code == 2
    assert result.output == "~ label: int_domain.max: 1 → 3\n"


def test_equal_schemas(draft):
    result = typed("diff", draft, draft)
    assert result.exit_code == 0
    assert "equal" in result.output


def test_infer_from_statistics(tmp_path):
    from tensorflow_metadata.proto.v0 import statistics_pb2

    stats = statistics_pb2.DatasetFeatureStatisticsList()
    dataset = stats.datasets.add(num_examples=4)
    depth = dataset.features.add(type=statistics_pb2.FeatureNameStatistics.INT)
    depth.path.step.append("depth")
    depth.num_stats.min = depth.num_stats.max = 1
    depth.num_stats.common_stats.num_non_missing = 4
    depth.num_stats.common_stats.min_num_values = depth.num_stats.common_stats.max_num_values = 1
    depth.num_stats.common_stats.tot_num_values = 4
    (tmp_path / "FeatureStats.pb").write_bytes(stats.SerializeToString())
    printed = typed("infer", tmp_path / "FeatureStats.pb")
    assert printed.exit_code == 0
    assert 'name: "depth"' in printed.output
    assert "bool_domain" not in printed.output
    said = typed("infer", tmp_path / "FeatureStats.pb", "--out", tmp_path / "draft.pbtxt")
    assert "cortexflow schema diff" in said.output
    assert (tmp_path / "draft.pbtxt").read_text() == printed.output


def test_errors_reach_the_command_line(tmp_path):
    with pytest.raises(CortexflowError, match="no schema"):
        typed("diff", tmp_path / "absent.pbtxt")


def test_diff_shows_comparators(tmp_path):
    schema = contract.load()
    entropy = next(f for f in schema.feature if f.name == "descriptor/entropy")
    entropy.drift_comparator.jensen_shannon_divergence.threshold = 0.3
    entropy.ClearField("skew_comparator")
    (tmp_path / "other.pbtxt").write_text(contract.render(schema))
    result = typed("diff", contract.CURATED, tmp_path / "other.pbtxt")
    assert result.exit_code == 2
    assert result.output.splitlines() == [
        "~ descriptor/entropy: drift_comparator.jensen_shannon_divergence.threshold: 0.6 → 0.3",
        "- descriptor/entropy: skew_comparator.jensen_shannon_divergence.threshold = 0.6",
    ]


def test_a_mistyped_path_is_told_what_is_near(draft):
    with pytest.raises(CortexflowError, match=r"no schema .*darft\.pbtxt: did you mean .*draft"):
        typed("diff", draft.with_name("darft.pbtxt"))
    with pytest.raises(CortexflowError, match=r"folder, no schema\. It holds draft\.pbtxt"):
        typed("diff", draft.parent)
    with pytest.raises(CortexflowError, match=r"nowhere/a\.pbtxt: check the path"):
        typed("diff", draft.parent / "nowhere" / "a.pbtxt")


@pytest.mark.parametrize("command", ["infer", "diff"])
def test_help_shows_examples(command):
    said = typed(command, "--help").output
    assert f"cortexflow schema {command}" in said
