"""The curated schema accepts valid examples and refuses broken ones; drafts and differences."""

import gzip
import io
import struct

import numpy as np
import pytest
from PIL import Image

from ingest.phantom.cohort import generate
from ingest.phantom.spec import PhantomSpec
from schema import contract, features, statistics
from schema.contract import Anomaly, Change
from schema.descriptors import NAMES, describe
from schema.errors import CortexflowError


def slice_like(seed, size=64):
    """Textured toy slice within the contract: grey rim, white inside, dark ventricles."""
    rng = np.random.default_rng(seed)
    axis = np.linspace(-1.25, 1.25, size)
    x, y = np.meshgrid(axis, axis)
    waves = np.sin(9 * np.arctan2(y, x) + rng.uniform(0, 6)) * np.hypot(x, y) ** 4
    image = 190 - 70 * (np.hypot(x, y) > 0.75) - 45 * waves + rng.normal(0, 6, x.shape)
    image[(np.abs(x) - 0.2) ** 2 / 0.02 + y**2 / 0.12 < 1] = 40
    image[np.hypot(x, y * 0.98) > 1] = 0
    return np.clip(image, 0, 255).astype(np.uint8)


def png(pixels):
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def row(pixels, label=0, subject_id=b"s1", **changes):
    """One example's features, as ingest writes them; None leaves a feature out."""
    encoded = pixels if isinstance(pixels, bytes) else png(pixels)
    size = (64, 64) if isinstance(pixels, bytes) else pixels.shape
    values = {
        features.IMAGE: encoded,
        features.LABEL: label,
        features.HEIGHT: size[0],
        features.WIDTH: size[1],
        features.DEPTH: 1,
        features.SUBJECT_ID: subject_id,
        features.SLICE_INDEX: 7,
        features.SITE: b"site-0",
        features.SOURCE_SHA256: b"ab" * 32,
    }
    return {name: v for name, v in (values | changes).items() if v is not None}


def serialize(values):
    import tensorflow as tf

    example = tf.train.Example()
    for name, value in values.items():
        feature = example.features.feature[name]
        if isinstance(value, bytes):
            feature.bytes_list.value.append(value)
        elif isinstance(value, int):
            feature.int64_list.value.append(value)
        else:
            feature.float_list.value.append(value)
    return example.SerializeToString(deterministic=True)


def write_records(path, rows):
    """A gzipped TFRecord file, written by TensorFlow itself."""
    import tensorflow as tf

    path.parent.mkdir(parents=True, exist_ok=True)
    options = tf.io.TFRecordOptions(compression_type="GZIP")
    with tf.io.TFRecordWriter(str(path), options) as writer:
        for values in rows:
            writer.write(serialize(values))


@pytest.fixture(scope="module")
def judge():
    """Anomalies of rows under the curated schema, as {feature: description}."""
    schema = contract.load()

    def judge(rows, environment="TRAINING"):
        observed = statistics.of_examples(map(serialize, rows))
        found = contract.validate(observed, schema, environment)
        return {anomaly.feature: anomaly.description for anomaly in found}

    return judge


@pytest.fixture(scope="module")
def valid():
    return [row(slice_like(n), n % 4, b"s%d" % n, slice_index=n) for n in range(8)]


def test_every_feature_and_descriptor_is_in_the_contract():
    names = {feature.name for feature in contract.load().feature}
    written = set(row(slice_like(0)))
    assert names == written | {features.DESCRIPTOR_PREFIX + name for name in NAMES}


def test_valid_examples_keep_the_contract(judge, valid):
    assert judge(valid) == {}


def test_unlabelled_slice_level_examples_keep_the_contract(judge):
    rows = [
        row(slice_like(n), features.UNLABELLED, None, site=None, slice_index=None) for n in range(4)
    ]
    assert judge(rows) == {}


def test_real_slices_keep_the_contract(judge, shared):
    files = sorted((shared / "data" / "oasis140").glob("*/*.jpg"))[::10]
    rows = [row(f.read_bytes(), 1, f.name[:7].encode(), height=128, width=128) for f in files]
    assert judge(rows) == {}


def test_existing_records_keep_the_contract(judge, shared):
    import tensorflow as tf

    rows = []
    for file in sorted((shared / "data" / "seed_tfrecords").iterdir()):
        for record in statistics._records([file]):
            example = tf.train.Example.FromString(record)
            example.features.feature[features.SOURCE_SHA256].bytes_list.value.append(b"ab" * 32)
            rows.append(example.SerializeToString())
    found = contract.validate(statistics.of_examples(rows), contract.load())
    assert len(rows) == 80
    assert found == []


def test_phantom_of_every_site_keeps_the_contract(judge, tmp_path):
    spec = PhantomSpec(preset="realistic", subjects=(2, 1, 1, 2), site=(0, 1, 2), seed=3)
    images = sorted(generate(spec, tmp_path, workers=1).glob("images/*/*.jpg"))
    assert len(images) == 48
    assert judge([row(image.read_bytes(), 2) for image in images]) == {}


def test_statistics_without_a_schema_are_judged_alike(valid):
    """As the pipeline's StatisticsGen makes them: labels counted as numbers, not categories."""
    from tensorflow_data_validation import StatsOptions
    from tensorflow_data_validation.statistics.stats_impl import generate_statistics_in_memory
    from tfx_bsl.coders.example_coder import ExamplesToRecordBatchDecoder

    for label, broken in ((0, []), (features.UNLABELLED, []), (4, ["label"])):
        rows = [serialize(values | {features.LABEL: label}) for values in valid]
        batch = statistics._described(ExamplesToRecordBatchDecoder().DecodeBatch(rows))
        found = contract.validate(
            generate_statistics_in_memory(batch, StatsOptions()), contract.load()
        )
        assert [anomaly.feature for anomaly in found] == broken


@pytest.mark.parametrize(
    ("changes", "feature"),
    [
        ({"label": 4}, "label"),
        ({"label": -2}, "label"),
        ({"label": None}, "label"),
        ({"depth": 4}, "depth"),
        ({"depth": 0}, "depth"),
        ({"height": 8}, "height"),
        ({"width": 5000}, "width"),
        ({"slice_index": -1}, "slice_index"),
        ({"source_sha256": None}, "source_sha256"),
        ({"age": 71}, "age"),
    ],
)
def test_broken_features_are_named(judge, changes, feature):
    rows = [row(slice_like(n)) for n in range(3)] + [row(slice_like(3), **changes)]
    assert list(judge(rows)) == [feature]


@pytest.mark.parametrize(("feature", "value"), [("label", b"NonDemented"), ("subject_id", 17)])
def test_wrong_types_are_named(judge, feature, value):
    rows = [row(slice_like(n), **{feature: value}) for n in range(3)]
    assert "Expected data of type" in judge(rows)[feature]
    with pytest.raises(CortexflowError, match=f'wrong type.*"{feature}"'):
        judge([row(slice_like(3)), *rows])


NONSENSE = {
    "noise": np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8),
    "black": np.zeros((64, 64), np.uint8),
    "white": np.full((64, 64), 255, np.uint8),
    "gradient": np.tile(np.arange(0, 256, 4, dtype=np.uint8), (64, 1)),
    "flat disc": np.where(slice_like(0) > 0, 180, 0).astype(np.uint8),
    "inverted": 255 - slice_like(0),
    "half": np.where(np.arange(64) < 32, slice_like(0), 0).astype(np.uint8),
    "zoomed": slice_like(0)[20:44, 20:44].repeat(3, 0).repeat(3, 1),
    "grey noise over all": np.clip(
        slice_like(0) + np.random.default_rng(1).normal(0, 60, (64, 64)), 0, 255
    ).astype(np.uint8),
}


@pytest.mark.parametrize("kind", NONSENSE)
def test_one_image_of_nonsense_breaks_the_contract(judge, valid, kind):
    found = judge([*valid, row(NONSENSE[kind])])
    assert found
    assert all(name.startswith(features.DESCRIPTOR_PREFIX) for name in found)


def test_not_a_number_breaks_the_contract(judge):
    described = {features.DESCRIPTOR_PREFIX + "entropy": float("nan")}
    assert "NaN" in judge([row(slice_like(0), **described)])["descriptor/entropy"]


def test_serving_needs_no_label_and_takes_no_identity(judge, valid):
    hidden = {"image", "label", "subject_id", "source_sha256"}
    observed = {feature: value for feature, value in valid[0].items() if feature not in hidden}
    measured = describe([slice_like(0)])
    described = {features.DESCRIPTOR_PREFIX + name: float(v[0]) for name, v in measured.items()}
    logged = [observed | described]
    assert judge(logged, "SERVING") == {}
    assert set(judge(logged, "TRAINING")) == hidden - {"subject_id"}
    assert set(judge(valid, "SERVING")) == hidden


def test_unknown_environment_is_refused(judge, valid):
    with pytest.raises(CortexflowError, match="no environment PRODUCTION"):
        judge(valid, "PRODUCTION")


@pytest.fixture(scope="module")
def dataset(tmp_path_factory, valid):
    """A dataset folder of two spans, the newest with a train and an unlabelled split."""
    root = tmp_path_factory.mktemp("dataset")
    write_records(root / "span-9/train/data-00000-of-00001.tfrecord.gz", [row(slice_like(9))])
    write_records(root / "span-10/train/data-00000-of-00002.tfrecord.gz", valid[:4])
    write_records(root / "span-10/train/data-00001-of-00002.tfrecord.gz", valid[4:])
    write_records(root / "span-10/unlabelled/data-00000-of-00001.tfrecord.gz",
                  [row(slice_like(20), features.UNLABELLED)])  # fmt: skip
    (root / "span-10" / "report.json").write_text("{}")
    return root


def test_draft_from_a_dataset(dataset):
    draft = {feature.name: feature for feature in contract.infer(dataset).feature}
    assert draft.keys() == {feature.name for feature in contract.load().feature}
    label, depth = draft["label"], draft["depth"]
    assert (label.int_domain.min, label.int_domain.max) == (-1, 3)
    assert label.int_domain.is_categorical
    assert depth.WhichOneof("domain_info") == "int_domain"  # TFDV alone makes a bool of it
    assert (depth.int_domain.min, depth.int_domain.max) == (1, 1)
    assert not draft["subject_id"].HasField("domain")  # the next subject is not an anomaly
    assert not draft["image"].HasField("domain")
    assert (draft["slice_index"].int_domain.min, draft["slice_index"].int_domain.max) == (0, 11)
    assert draft["descriptor/entropy"].float_domain.disallow_nan


def test_draft_accepts_its_own_data_and_survives_writing(dataset, tmp_path):
    (tmp_path / "draft.pbtxt").write_text(contract.render(contract.infer(dataset)))
    draft = contract.load(tmp_path / "draft.pbtxt")
    assert contract.validate(statistics.read(dataset), draft) == []


def test_examplegen_and_statistics_folders_are_read(dataset, tmp_path):
    computed = statistics.read(dataset)
    assert list(computed) == ["train", "unlabelled"]
    assert computed["train"].datasets[0].num_examples == 8
    for split, stats in computed.items():
        folder = tmp_path / "statistics" / f"Split-{split}"
        folder.mkdir(parents=True)
        (folder / "FeatureStats.pb").write_bytes(stats.SerializeToString())
        records = tmp_path / "examples" / f"Split-{split}" / "data_tfrecord-00000-of-00001.gz"
        records.parent.mkdir(parents=True)
        for file in sorted((dataset / "span-10" / split).iterdir()):
            records.open("ab").write(file.read_bytes())  # gzip members may be joined
    assert statistics.read(tmp_path / "statistics") == computed
    assert list(statistics.read(tmp_path / "examples")) == ["train", "unlabelled"]
    alone = tmp_path / "statistics" / "Split-train" / "FeatureStats.pb"
    assert statistics.read(alone) == {"": computed["train"]}
    assert contract.infer(tmp_path / "statistics") == contract.infer(computed)


def test_described_examples_are_not_described_again(judge):
    described = {features.DESCRIPTOR_PREFIX + name: 0.5 for name in NAMES}
    found = judge([row(slice_like(0), **described)])
    assert "descriptor/taper" in found  # 0.5 lies outside, the image's own taper within


def test_sources_that_hold_nothing_are_refused(tmp_path):
    with pytest.raises(CortexflowError, match="neither statistics nor TFRecords"):
        statistics.read(tmp_path)
    for content in (b"", b"\xff\xff"):
        (tmp_path / "FeatureStats.pb").write_bytes(content)
        with pytest.raises(CortexflowError, match="no TFDV statistics"):
            statistics.read(tmp_path / "FeatureStats.pb")


def test_cut_records_are_named(tmp_path):
    cut = gzip.compress(struct.pack("<Q", 100) + b"short")
    (tmp_path / "cut.tfrecord.gz").write_bytes(cut)
    with pytest.raises(CortexflowError, match=r"cut\.tfrecord\.gz is not a whole TFRecord"):
        statistics.read(tmp_path)


def test_undecodable_images_are_named(judge):
    with pytest.raises(CortexflowError, match="cannot be decoded"):
        judge([row(b"GIF89a")])


def test_equal_schemas_do_not_differ():
    assert contract.diff(contract.load(), contract.load()) == []


def test_differences_are_readable():
    before, after = contract.load(), contract.load()
    depth = next(feature for feature in after.feature if feature.name == "depth")
    depth.int_domain.max = 4
    site = next(feature for feature in after.feature if feature.name == "site")
    site.presence.min_fraction = 1
    site.ClearField("value_count")
    label = next(feature for feature in after.feature if feature.name == "label")
    after.feature.remove(label)
    after.feature.add(name="age", type=2)
    del after.default_environment[1:]
    changes = contract.diff(before, after)
    assert Change("depth", "int_domain.max", "3", "4") in changes
    assert list(map(str, changes)) == [
        "~ (schema): default_environment: SERVING, TRAINING → TRAINING",
        "+ age",
        "~ depth: int_domain.max: 3 → 4",
        "- label",
        "+ site: presence.min_fraction = 1",
        "- site: value_count.max = 1",
        "- site: value_count.min = 1",
    ]


def test_order_of_features_is_no_difference():
    shuffled = contract.load()
    backwards = list(reversed(shuffled.feature))
    del shuffled.feature[:]
    shuffled.feature.extend(backwards)
    assert contract.diff(contract.load(), shuffled) == []


@pytest.mark.parametrize("content", [None, "feature {", "colour: 3", "\x00\xff"])
def test_files_that_are_no_schema_are_refused(tmp_path, content):
    if content is not None:
        (tmp_path / "x.pbtxt").write_text(content)
    with pytest.raises(CortexflowError, match="no schema"):
        contract.load(tmp_path / "x.pbtxt")


def test_anomalies_carry_their_split(valid):
    good = statistics.of_examples(map(serialize, valid))
    bad = statistics.of_examples([serialize(row(slice_like(0), label=9))])
    found = contract.validate({"val": bad, "train": good}, contract.load())
    assert [(a.split, a.feature) for a in found] == [("val", "label")]
    assert isinstance(found[0], Anomaly)
    assert "9" in found[0].description
