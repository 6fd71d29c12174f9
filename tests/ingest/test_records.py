"""TFRecords and Examples: byte for byte what TensorFlow reads and writes."""

import gzip

import pytest

from ingest.records import (
    RecordError,
    compress_records,
    decode_example,
    encode_example,
    framed,
    read_records,
    write_records,
)

FEATURES = {"image": b"\xff\xd8", "label": -1, "descriptor/a": [0.5, 1.5], "z": [b"x"]}


def test_round_trip(tmp_path):
    records = [encode_example(FEATURES), b"", b"x" * 100_000]
    assert write_records(tmp_path / "a.gz", records) == 3
    assert list(read_records(tmp_path / "a.gz")) == records
    assert decode_example(records[0]) == {
        "image": [b"\xff\xd8"],
        "label": [-1],
        "descriptor/a": [0.5, 1.5],
        "z": [b"x"],
    }


def test_same_records_same_bytes(tmp_path):
    for name in ("a.gz", "b.gz"):
        write_records(tmp_path / name, [b"1", b"2"])
    assert (tmp_path / "a.gz").read_bytes() == (tmp_path / "b.gz").read_bytes()
    reordered = dict(reversed(FEATURES.items()))
    assert encode_example(FEATURES) == encode_example(reordered)


def test_a_plain_file_is_compressed_as_its_records_are(tmp_path):
    records = [b"", b"x" * 3_000_000, bytes(range(256)) * 3]
    (tmp_path / "plain").write_bytes(b"".join(map(framed, records)))
    compress_records(tmp_path / "plain", tmp_path / "a.gz")
    write_records(tmp_path / "b.gz", records)
    assert list(read_records(tmp_path / "a.gz")) == records
    assert gzip.decompress((tmp_path / "a.gz").read_bytes()) == gzip.decompress(
        (tmp_path / "b.gz").read_bytes()
    )


def test_tensorflow_agrees(tmp_path):
    import tensorflow as tf

    record = encode_example(FEATURES)
    theirs = tf.train.Example.FromString(record)
    assert theirs.features.feature["label"].int64_list.value[:] == [-1]
    assert theirs.SerializeToString(deterministic=True) == record
    write_records(tmp_path / "a.gz", [record])
    read = tf.data.TFRecordDataset(str(tmp_path / "a.gz"), "GZIP")
    assert [item.numpy() for item in read] == [record]
    with tf.io.TFRecordWriter(str(tmp_path / "plain")) as writer:
        writer.write(record)
    assert list(read_records(tmp_path / "plain")) == [record]


@pytest.mark.parametrize("cut", [1, 5, 11, 13, 18])
def test_a_file_cut_short_is_an_error(tmp_path, cut):
    write_records(tmp_path / "a.gz", [b"first", b"second"])
    whole = gzip.decompress((tmp_path / "a.gz").read_bytes())
    (tmp_path / "b").write_bytes(whole[:-cut])
    with pytest.raises(RecordError, match=r"b: record 1 cannot be read"):
        list(read_records(tmp_path / "b"))


def test_a_changed_byte_is_an_error(tmp_path):
    write_records(tmp_path / "a.gz", [b"first"])
    whole = bytearray(gzip.decompress((tmp_path / "a.gz").read_bytes()))
    whole[13] ^= 1
    (tmp_path / "b").write_bytes(whole)
    with pytest.raises(RecordError, match="checksum"):
        list(read_records(tmp_path / "b"))


def test_what_is_no_record_or_example_is_an_error(tmp_path):
    (tmp_path / "text").write_text("this is not a TFRecord file")
    with pytest.raises(RecordError, match="no TFRecord"):
        list(read_records(tmp_path / "text"))
    with pytest.raises(RecordError, match=r"not a tf\.train\.Example"):
        decode_example(b"\xff\xff\xff")
