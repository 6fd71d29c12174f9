"""JSON that should not exist, and strategies that make more of it."""

import base64
import json
import random

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
ROWS = st.lists(
    st.just({"b64": GOOD}) | st.just({"images": {"b64": GOOD}}) | VALUES, min_size=1, max_size=10
)
DOCUMENTS = st.fixed_dictionaries({"instances": ROWS}) | st.fixed_dictionaries({"inputs": ROWS})
DOCUMENTS |= VALUES | st.fixed_dictionaries(
    {}, optional={"instances": VALUES, "inputs": VALUES, "signature_name": VALUES}
)


INSERTED = (
    *(b"NaN", b"1e999", b"-Infinity", b"[" * 40, b'"a":1,', b"\xff", b",", b'"', b"\\"),
    *(b'{"b64":"AAAA"},' * 9, b"A" * 6000),  # too many, too large
)


def encoded(document, source: random.Random) -> bytes:
    """A document as JSON; lone surrogates as the bytes that UTF-8 forbids."""
    text = json.dumps(document, ensure_ascii=source.random() < 0.5)
    return text.encode("utf-8", "surrogatepass")


def damaged(body: bytes, source: random.Random) -> bytes:
    """A body with up to three pieces cut, put in, doubled or changed by a bit."""
    changed = bytearray(body)
    for _ in range(source.randrange(4)):
        place = source.randrange(len(changed) + 1)
        kind = source.randrange(4)
        if kind == 0:
            del changed[place : place + source.randrange(1, 9)]
        elif kind == 1:
            changed[place:place] = source.choice(INSERTED)
        elif kind == 2:
            changed[place:place] = changed[place : place + 32]
        elif place < len(changed):
            changed[place] ^= 1 << source.randrange(8)
    return bytes(changed)


@st.composite
def bodies(draw, count: int = 1):
    """Lists of bytes near to JSON: documents, documents with damage, and noise."""
    document = draw(DOCUMENTS)
    source = random.Random(draw(st.integers(0, 2**32)))
    body = encoded(document, source)
    made = [damaged(body, source) for _ in range(count)]
    if source.random() < 0.1:
        made[0] = source.randbytes(source.randrange(64))
    return made


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
