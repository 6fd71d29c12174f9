"""JSON from strangers: the rows of the hostile matrix on JSON, and what a generator thinks of."""

import base64
import json

import numpy as np
import pytest
from hostile_json import GOOD, LIMITS, bodies, outcome, understand
from hypothesis import given, settings
from hypothesis import strategies as st

from ingest.records import encode_example
from serving import jsonbody
from serving.config import Limits
from serving.errors import ServingError

ROW = {"b64": GOOD}
DEEP = b"[" * 100_000 + b"]" * 100_000


def instances(*values, **more):
    return json.dumps({"instances": list(values), **more}).encode()


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b"", "invalid_json"),
        (b"   ", "invalid_json"),
        (b"{", "invalid_json"),
        (b"instances = [1, 2]", "invalid_json"),
        (b'{"instances": [NaN]}', "invalid_json"),
        (b'{"instances": [Infinity]}', "invalid_json"),
        (b'{"instances": [-Infinity]}', "invalid_json"),
        (b'{"instances": [1e999]}', "invalid_json"),
        (b'{"instances": ["\xff"]}', "invalid_json"),
        (b'{"instances": ["\\ud800"]}', "invalid_json"),
        (b"\xef\xbb\xbf{}", "invalid_json"),
        (b'{"instances": [], }', "invalid_json"),
        (DEEP, "invalid_json"),
        (b'{"instances": ' + b"[" * 500 + b"]" * 500 + b"}", "invalid_json"),
        (b'{"a": ' * 50 + b"1" + b"}" * 50, "invalid_json"),
        (b'{"instances": [], "instances": []}', "invalid_json"),
        (b'{"instances": [], "inst\\u0061nces": []}', "invalid_json"),
        (b'{"x": {"b64": "a:b", "b64": "c"}}', "invalid_json"),
        (b'{"instances": [' + b"0," * 200_000 + b"0]}", "too_large"),
        (b"[]", "invalid_request"),
        (b"null", "invalid_request"),
        (b'"text"', "invalid_request"),
        (b"{}", "invalid_request"),
        (b'{"instance": []}', "invalid_request"),
        (b'{"instances": [], "inputs": []}', "invalid_request"),
        (instances(), "invalid_request"),
        (b'{"instances": {"b64": ""}}', "invalid_request"),
        (b'{"instances": "abc"}', "invalid_request"),
        (b'{"inputs": {"b64": "AAAA"}}', "invalid_request"),
        (b'{"inputs": {}}', "invalid_request"),
        (b'{"inputs": {"images": [], "more": []}}', "invalid_request"),
        (b'{"inputs": {"pixels": [{"b64": "AAAA"}]}}', "invalid_request"),
        (instances(1e308), "invalid_request"),
        (instances(True), "invalid_request"),
        (instances(None), "invalid_request"),
        (instances("text"), "invalid_request"),
        (instances([0.0, 1.0]), "invalid_request"),
        (instances([[0.0], [1.0, 2.0]]), "invalid_request"),
        (instances({"b64": 7}), "invalid_request"),
        (instances({"b64": None}), "invalid_request"),
        (instances({"b64": "not base64!"}), "invalid_request"),
        (instances({"b64": "AAAAA"}), "invalid_request"),
        (instances({"b64": "AA\nAA"}), "invalid_request"),
        (instances({"b64": "caf\u00e9"}), "invalid_request"),
        (instances({"b64": GOOD, "more": 1}), "invalid_request"),
        (instances({"pixels": ROW}), "invalid_request"),
        (instances({"images": ROW}, {"examples": ROW}), "invalid_request"),
        (instances({"images": ROW}, ROW), "invalid_request"),
        (instances(ROW, 1), "invalid_request"),
        (instances(ROW, signature_name=7), "invalid_request"),
        (instances(ROW, signature_name="nope"), "invalid_request"),
        (instances(ROW, signature_name="serving_default"), "invalid_request"),
        (instances({"examples": {"b64": ""}}), "invalid_request"),
        (instances({"b64": base64.b64encode(b"\n\xff").decode()}), "invalid_request"),
        (instances(*[ROW] * 9), "too_large"),
        (instances({"b64": "A" * 8000}), "too_large"),
        (instances(ROW), "ok"),
        (instances(*[ROW] * 8, signature_name="predict_images"), "ok"),
        (instances(ROW, signature_name=None), "ok"),
        (instances({"b64": ""}), "ok"),  # the engine refuses an image of no bytes
        (b'{"note": "a:b,[{:", "instances": [{"b64": "AAAA"}]}', "ok"),
    ],
)
def test_matrix(body, code):
    assert outcome(body) == code


@pytest.mark.parametrize(
    "example",
    [
        {},
        {"image": [1]},
        {"image": [b"a", b"b"]},
        {"image": [0.5]},
        {"other": b"a"},
    ],
)
def test_examples_without_one_image(example):
    encoded = base64.b64encode(encode_example(example)).decode()
    assert outcome(instances({"examples": {"b64": encoded}})) == "invalid_request"


def test_depth_is_counted_from_the_outside():
    limits = Limits(max_json_depth=3)
    assert jsonbody.parse(b"[[[1]]]", limits) == [[[1]]]
    assert jsonbody.parse(b"[[[]]]", limits) == [[[]]]
    with pytest.raises(ServingError, match="deeper than 3"):
        jsonbody.parse(b"[[[[1]]]]", limits)


def test_nothing_of_the_body_is_repeated():
    for body in (b'{"canary-7f3": NaN}', b'{"a": "canary-7f3", "a": 1}', instances("canary-7f3")):
        with pytest.raises(ServingError) as caught:
            understand(body)
        assert "canary" not in str(caught.value) + repr(caught.value.details)


def test_float32_is_written_to_the_last_bit():
    values = np.random.default_rng(0).random(1000, np.float32)
    again = np.array(json.loads(jsonbody.dump(values)), np.float32)
    np.testing.assert_array_equal(again, values)


@settings(max_examples=500, deadline=None)
@given(bodies(4))
def test_no_body_is_a_defect(made):
    for body in made:
        outcome(body)


@settings(max_examples=200, deadline=None)
@given(
    st.recursive(
        st.none() | st.booleans() | st.text() | st.integers(-(2**53), 2**53),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
        max_leaves=10,
    )
)
def test_what_is_json_is_read_as_pythons_parser_reads_it(document):
    body = json.dumps(document, ensure_ascii=False).encode()
    assert jsonbody.parse(body, Limits(max_json_depth=100)) == json.loads(body)


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.tuples(st.sampled_from(["a", "b", "a:", 'a"', "\\", "é"]), st.text()), max_size=4)
)
def test_a_name_given_twice_is_always_found(pairs):
    body = "{" + ",".join(f"{json.dumps(k)}: {json.dumps(v)}" for k, v in pairs) + "}"
    names = [name for name, _ in pairs]
    if len(set(names)) == len(names):
        assert jsonbody.parse(body.encode(), LIMITS) == dict(pairs)
    else:
        with pytest.raises(ServingError, match="twice"):
            jsonbody.parse(body.encode(), LIMITS)
