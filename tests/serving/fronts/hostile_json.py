"""JSON that should not exist, and strategies that make more of it."""

import base64
import json

from hypothesis import strategies as st

from serving import jsonbody, signatures
from serving.config import Limits
from serving.errors import ServingError

GOOD = base64.b64encode(b"\x89PNG\r\n\x1a\n" + bytes(40)).decode()
LIMITS = Limits(max_instances=8, max_image_bytes=4096)
CODES = {"invalid_json", "invalid_request", "too_large"}

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text()
    | st.sampled_from([GOOD, "b64", "images", "instances", "\ud7ff", "\x00", "../../x"])
)
NAMES = st.sampled_from(
    ["instances", "inputs", "signature_name", "b64", "images", "examples", "predict_images", ""]
)
VALUES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=3)
        | st.just({"b64": GOOD})
    ),
    max_leaves=12,
)
DOCUMENTS = VALUES | st.fixed_dictionaries(
    {}, optional={"instances": VALUES, "inputs": VALUES, "signature_name": VALUES}
)


@st.composite
def bodies(draw):
    """Bytes near to JSON: documents, documents with bytes cut, doubled or exchanged, and noise."""
    if draw(st.integers(0, 9)) == 0:
        return draw(st.binary(max_size=64))
    body = bytearray(
        json.dumps(draw(DOCUMENTS), ensure_ascii=draw(st.booleans())).encode(
            "utf-8", "surrogatepass"
        )
    )
    for _ in range(draw(st.integers(0, 3))):
        place = draw(st.integers(0, len(body)))
        kind = draw(st.integers(0, 3))
        if kind == 0:
            del body[place : place + draw(st.integers(1, 8))]
        elif kind == 1:
            body[place:place] = draw(
                st.sampled_from(
                    [b"NaN", b"1e999", b"-Infinity", b"[" * 40, b'"a":1,', b"\xff", b","]
                )
            )
        elif kind == 2:
            body[place:place] = body[place : place + 32]
        elif body and place < len(body):
            body[place] ^= 1 << draw(st.integers(0, 7))
    return bytes(body)


def understand(body: bytes) -> signatures.Call:
    """What a front makes of a body."""
    return signatures.from_json(jsonbody.parse(body, LIMITS), LIMITS)


def outcome(body: bytes) -> str:
    """`ok` or the code; anything but a `ServingError` escapes, which is the failure looked for."""
    try:
        call = understand(body)
    except ServingError as problem:
        jsonbody.dump({"error": str(problem), "details": problem.details})
        return problem.code if problem.code in CODES else f"not of a body: {problem.code}"
    assert 1 <= len(call.images) <= LIMITS.max_instances
    assert all(isinstance(image, bytes) for image in call.images)
    return "ok"
