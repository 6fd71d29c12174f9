"""DriftGate: what is compared with what, and what becomes of it."""

import gzip
import json

import numpy as np
import pytest

from components import drift_gate
from components.drift_columns import read_split
from components.drift_gate import between_spans, between_splits, earlier, judge, placed, spans_of
from evaluation.columns import Columns, joined
from evaluation.config import DriftSettings
from evaluation.outcome import Outcome, from_json
from schema import contract
from schema.descriptors import NAMES
from schema.errors import CortexflowError

CLASSES = ("Mild", "None")
QUICK = DriftSettings(permutations=6999)
REPORT = DriftSettings(permutations=6999, on_drift="report")


def people(
    name, count, *, span="span-1", split="train", seed=0, slices=4, site="", shift=0.0, ids=True
):
    """Images of people with descriptors between 0 and 1; `entropy` may be shifted."""
    rng = np.random.default_rng([seed, *name.encode()])
    numbers = np.repeat(np.arange(count), slices)
    described = {}
    for descriptor in NAMES:
        person = rng.normal(0.5, 0.05, count)[numbers]
        described[descriptor] = person + rng.normal(0, 0.03, len(numbers))
    described["entropy"] += shift
    return Columns(
        subjects=np.array([f"{name}{n:03d}" if ids else "" for n in numbers]),
        labels=numbers % len(CLASSES),
        sites=np.full(len(numbers), site),
        sha256=np.array([f"{name}-{n}-{k}" for k, n in enumerate(numbers)]),
        splits=np.full(len(numbers), split),
        spans=np.full(len(numbers), span),
        described=described,
    )


def decided(columns, settings=QUICK, *, leaked=False, schema=None):
    asked = between_spans(columns, settings)
    asked += between_splits(columns, settings, leaked=leaked)
    return judge(asked, CLASSES, schema or type(contract.load())(), settings)


def test_the_newest_span_is_held_against_all_before_it():
    columns = joined(
        [people("a", 9, span="span-9"), people("b", 8, span="span-10"), people("c", 7)]
    )
    [contrast] = between_spans(columns, QUICK)
    assert contrast.names == ("span-1, span-9", "span-10")
    assert set(contrast.current.subjects) == {f"b{n:03d}" for n in range(8)}
    assert set(contrast.reference.spans) == {"span-1", "span-9"}
    assert contrast.kind == "drift"


def test_test_and_val_are_held_against_train():
    columns = joined([people("a", 9), people("b", 8, split="test"), people("c", 7, split="val")])
    assert [c.names for c in between_splits(columns, QUICK, leaked=False)] == [
        ("train", "test"),
        ("train", "val"),
    ]
    assert between_spans(columns, QUICK) == []
    alone = columns.select(columns.splits == "train")
    assert between_splits(alone, QUICK, leaked=False) == []


def test_like_people_pass():
    columns = joined([people("a", 40), people("b", 25, split="test", seed=1)])
    decision, table = decided(columns)
    assert decision.outcome is Outcome.PASSED
    [check] = decision.checks
    assert check.name == "test against train"
    assert "no drift found" in check.detail
    [comparison] = table["comparisons"]
    assert comparison["people"] == (40, 25)
    assert len(comparison["features"]) == len(NAMES) + 1
    assert comparison["features"][0]["reference"]
    json.dumps(table, allow_nan=False)


def test_a_drifted_span_is_refused_with_name_and_numbers():
    columns = joined([people("a", 40), people("b", 30, span="span-2", shift=0.15)])
    decision, table = decided(columns)
    assert decision.outcome is Outcome.REFUSED
    [reason] = decision.reasons
    assert "span-2 (30 people) against span-1 (40)" in reason
    [entropy] = [f for f in table["comparisons"][0]["features"] if f["name"] == "entropy"]
    assert f"entropy {entropy['before']:.3g} → {entropy['after']:.3g}" in reason
    assert f"divergence {entropy['divergence']:.3f}" in reason
    assert decision.details["comparisons"][0]["drifted"] == ["entropy"]
    assert entropy["divergence"] > entropy["seen_from"] >= entropy["threshold"]


def test_report_tells_and_lets_pass():
    columns = joined([people("a", 40), people("b", 30, span="span-2", shift=0.15)])
    decision, table = decided(columns, REPORT)
    assert decision.outcome is Outcome.PASSED
    assert decision.checks[0].detail.startswith("DRIFT, reported only: span-2")
    assert table["comparisons"][0]["outcome"] == "refused"
    assert table["comparisons"][0]["refuses"] is False


def test_a_split_that_is_known_to_leak_is_reported_only():
    columns = joined(
        [people("a", 40), people("a", 40, split="test", seed=0, shift=0.15),
         people("b", 30, span="span-2", split="train", shift=0.0, seed=4)]
    )  # fmt: skip
    decision, table = decided(columns, leaked=True)
    told = {entry["current"]: entry for entry in table["comparisons"]}
    assert told["test"]["outcome"] == "refused"
    assert told["test"]["in_both"] == 40
    assert told["test"]["refuses"] is False
    assert told["span-2"]["refuses"] is True
    assert decided(columns)[0].outcome is Outcome.REFUSED
    assert decision.checks[1].detail.startswith("DRIFT, reported only")


def test_few_people_are_told_and_do_not_pass_for_no_drift():
    columns = joined([people("a", 40), people("b", 12, split="test", shift=0.5)])
    decision, table = decided(columns, schema=contract.load())
    assert decision.outcome is Outcome.INSUFFICIENT
    assert "12 in test" in decision.reasons[0]
    assert table["comparisons"][0]["comparators"] == []


def test_a_refusal_outweighs_a_lack():
    columns = joined(
        [people("a", 40), people("b", 25, split="test", shift=0.2), people("c", 9, split="val")]
    )
    decision, _ = decided(columns)
    assert decision.outcome is Outcome.REFUSED
    assert len(decision.reasons) == 2


def test_slice_level_data_cannot_be_compared():
    columns = joined([people("a", 40, ids=False), people("b", 40, split="test", ids=False)])
    decision, _ = decided(columns)
    assert decision.outcome is Outcome.INSUFFICIENT
    assert "no subject ids" in decision.reasons[0]


def test_nothing_to_compare_is_told():
    decision, table = decided(people("a", 40))
    assert decision.outcome is Outcome.INSUFFICIENT
    assert "nothing to compare" in decision.reasons[0]
    assert table["comparisons"] == []


def test_a_new_site_is_drift():
    columns = joined([people("a", 30, site="A"), people("b", 30, span="span-2", site="B", seed=2)])
    decision, _ = decided(columns)
    assert decision.details["comparisons"][0]["drifted"] == ["site"]
    assert "site A 100% → 0%" in decision.reasons[0]


def test_labels_outside_of_the_classes_are_left_to_the_contract():
    odd = people("b", 30, split="test", seed=3)
    odd.labels[:] = 9
    decision, table = decided(joined([people("a", 40), odd]))
    assert "label" in decision.details["comparisons"][0]["drifted"]
    assert "9" in table["comparisons"][0]["features"][-1]["bins"]


def comparing(threshold, field):
    schema = type(contract.load())()
    entropy = schema.feature.add(name="descriptor/entropy", type=3)
    getattr(entropy, field).jensen_shannon_divergence.threshold = threshold
    label = schema.feature.add(name="label", type=2)
    label.int_domain.is_categorical = True
    getattr(label, field).infinity_norm.threshold = 0.2
    return schema


def test_a_comparator_of_the_schema_refuses_by_its_own_name():
    columns = joined([people("a", 40), people("b", 30, split="test", seed=1, shift=0.01)])
    decision, table = decided(columns, schema=comparing(0.001, "skew_comparator"))
    assert decision.outcome is Outcome.REFUSED
    [reason] = decision.reasons
    assert "test against train: schema skew_comparator fired: descriptor/entropy" in reason
    entropy, label = table["comparisons"][0]["comparators"]
    assert entropy["fired"]
    assert not label["fired"]
    assert label["value"] == pytest.approx(0.0, abs=0.05)
    passed, _ = decided(columns, schema=comparing(0.9, "skew_comparator"))
    assert passed.outcome is Outcome.PASSED
    assert "nearest to its threshold" in passed.checks[1].detail
    told, _ = decided(columns, REPORT, schema=comparing(0.001, "skew_comparator"))
    assert told.outcome is Outcome.PASSED
    assert told.checks[1].detail.startswith("FIRED, reported only")
    other, _ = decided(columns, schema=comparing(0.001, "drift_comparator"))
    assert other.outcome is Outcome.PASSED  # that one is for spans


def test_label_comparators_see_a_change_of_mix():
    """TFDV gives 0 for labels counted as numbers; here they are categories."""
    ill = people("b", 30, span="span-2", seed=1)
    ill.labels[:] = np.repeat(np.arange(30) % 5 == 0, 4)
    decision, table = decided(
        joined([people("a", 40), ill]), schema=comparing(0.9, "drift_comparator")
    )
    [label] = [d for d in table["comparisons"][0]["comparators"] if d["feature"] == "label"]
    assert label["value"] == pytest.approx(0.3, abs=1e-6)
    assert any("drift_comparator fired: label" in reason for reason in decision.reasons)


@pytest.fixture
def dataset(tmp_path):
    """Two spans of raw records, as ingest writes them, and their images by name."""
    from ingest.phantom import PhantomSpec, render_subject
    from ingest.records import encode_example, write_records

    spec = PhantomSpec("easy", (1, 1, 1, 1), slices=2, seed=5)
    for number in range(4):
        subject = render_subject(spec, number)
        folder = tmp_path / f"span-{number // 2 + 1}"
        file = f"{('train', 'test')[number % 2]}/data-00000-of-00001.tfrecord.gz"
        (folder / file).parent.mkdir(parents=True, exist_ok=True)
        digests = [f"{subject.id}-{k}" for k in range(2)]
        write_records(
            folder / file,
            [
                encode_example(
                    {
                        "image": image,
                        "label": subject.label,
                        "subject_id": subject.id.encode(),
                        "source_sha256": digest.encode(),
                    }
                )
                for image, digest in zip(subject.encoded, digests, strict=True)
            ],
        )
        with gzip.open(folder / "manifest.jsonl.gz", "at") as manifest:
            for digest in digests:
                manifest.write(json.dumps({"file": file, "source_sha256": digest}) + "\n")
    return tmp_path


def test_images_find_their_span(dataset):
    spans = spans_of(str(dataset))
    assert {span: set(splits) for span, splits in spans.items()} == {
        "span-1": {"train", "test"},
        "span-2": {"train", "test"},
    }
    newest = read_split(str(dataset / "span-2/train/data-*"), "train", described=False)
    columns = placed(newest, spans)
    assert set(columns.spans) == {"span-2"}
    before = earlier(columns, spans, str(dataset))
    assert set(before.spans) == {"span-1"}
    assert sorted(zip(before.subjects, before.splits, strict=True)) == [
        ("subj0001", "train"), ("subj0001", "train"), ("subj0002", "test"), ("subj0002", "test"),
    ]  # fmt: skip
    assert 0.1 < before.described["csf_fraction"].min() < 0.5
    unknown = placed(people("x", 3), spans)
    assert set(unknown.spans) == {""}
    assert between_spans(unknown, QUICK) == []
    assert spans_of(str(dataset / "absent")) == {}


def test_examples_with_descriptors_are_not_described_again(dataset, tmp_path):
    from components.image_example_gen import add_descriptors
    from ingest.records import read_records, write_records

    source = dataset / "span-1/train/data-00000-of-00001.tfrecord.gz"
    write_records(tmp_path / "described.gz", add_descriptors(list(read_records(source))))
    counts = []
    raw = read_split([str(source)], "train", described=False, progress=counts.append)
    read = read_split([str(tmp_path / "described.gz")], "train", described=True)
    assert counts == [2]
    for name in NAMES:
        assert read.described[name] == pytest.approx(raw.described[name], abs=1e-6)
    assert list(read.sha256) == list(raw.sha256)


def test_an_undecodable_image_is_named(tmp_path):
    from ingest.records import encode_example, write_records

    write_records(tmp_path / "bad.gz", [encode_example({"image": b"GIF89a"})])
    with pytest.raises(CortexflowError, match="bad.gz.*cannot be decoded"):
        read_split([str(tmp_path / "bad.gz")], "train", described=False)


def test_the_node_publishes_decision_and_table(dataset, tmp_path):
    """Called as TFX calls it, on artifacts of the types it declares."""
    from tfx.types import artifact_utils
    from tfx.types.standard_artifacts import Examples, Schema

    from components.artifacts import DataDecision
    from components.image_example_gen import add_descriptors
    from ingest.records import read_records, write_records

    examples, schema, decision = Examples(), Schema(), DataDecision()
    examples.uri, schema.uri, decision.uri = (str(tmp_path / n) for n in ("ex", "schema", "out"))
    examples.split_names = artifact_utils.encode_split_names(["train", "test"])
    examples.version = 1
    for split in ("train", "test"):
        folder = tmp_path / "ex" / f"Split-{split}"
        folder.mkdir(parents=True)
        for span in (1, 2):
            [source] = (dataset / f"span-{span}" / split).iterdir()
            write_records(folder / f"{span}.gz", add_descriptors(list(read_records(source))))
    (tmp_path / "schema").mkdir()
    (tmp_path / "schema" / "schema.pbtxt").write_text(contract.render(contract.load()))
    (tmp_path / "out").mkdir()
    drift_gate.DriftGate.EXECUTOR_SPEC.executor_class._FUNCTION(
        examples=examples,
        schema=schema,
        decision=decision,
        dataset=str(dataset),
        classes="A,B,C,D",
        leaked=0,
        settings=DriftSettings().model_dump_json(),
        code="",
    )
    written = from_json((tmp_path / "out" / "decision.json").read_text())
    assert written.outcome is Outcome.INSUFFICIENT
    table = json.loads((tmp_path / "out" / "drift.json").read_text())
    assert [(c["current"], c["reference"], c["people"]) for c in table["comparisons"]] == [
        ("span-2", "span-1", [2, 2]),
        ("test", "train", [2, 2]),
    ]
