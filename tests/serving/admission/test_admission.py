"""Every kind of broken, odd or hostile image, with the exact answer that a client gets."""

import io
import json
import struct
import subprocess
import sys

import hostile
import numpy as np
import pytest
from hostile import CANARY, RAMP, encoded
from PIL import Image

from schema.descriptors import NAMES, describe
from serving.admission import Admission, Admitted
from serving.config import Limits
from serving.errors import ServingError

GREY = Admission(Limits(), 1)
COLOUR = Admission(Limits(), 3)
RGB = np.stack([RAMP, RAMP // 2, RAMP[::-1]], -1)
NOISE = np.random.default_rng(0).integers(0, 255, (80, 96), np.uint8)


def refusal(data, admission=GREY) -> ServingError:
    with pytest.raises(ServingError) as caught:
        admission.admit([data])
    error = caught.value
    json.dumps(error.details, allow_nan=False)
    assert error.details["instance"] == 0
    return error


def answer(data, admission=GREY):
    error = refusal(data, admission)
    return error.http_status, error.code, error.details["reason"]


def pixels(data, admission=GREY):
    (one,) = admission.admit([data]).pixels
    return one


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("tenths", range(10))
def test_truncated_at_every_tenth(kind, tenths):
    data = encoded(NOISE, kind)
    reason = "truncated" if tenths else "empty"
    assert answer(data[: len(data) * tenths // 10]) == (422, "refused_image", reason)


TYPES = {
    "gif": encoded(RAMP, "GIF"),
    "bmp": encoded(RAMP, "BMP"),
    "tiff": encoded(RAMP, "TIFF"),
    "webp": encoded(RAMP, "WEBP"),
    "ico": encoded(RAMP, "ICO"),
    "ppm": encoded(RAMP, "PPM"),
    "jpeg2000": b"\0\0\0\x0cjP  \r\n\x87\n" + b"\0" * 99,
    "pdf": b"%PDF-1.7\n" + b"0" * 99,
    "eps": b"%!PS-Adobe-3.0 EPSF-3.0\n" + b"0" * 99,
    "svg": b"<svg xmlns='http://www.w3.org/2000/svg'/>",
    "html": b"<!DOCTYPE html><script>alert(1)</script>",
    "psd": b"8BPS" + b"\0" * 99,
    "fits": b"SIMPLE  =                    T" + b" " * 99,
    "nifti": b"\x1f\x8b" + b"\0" * 99,
    "zip": b"PK\x03\x04" + b"\0" * 99,
    "dicom": b"\0" * 128 + b"DICM" + b"\0" * 99,
    "dicom with an executable preamble": b"MZ" + b"\0" * 126 + b"DICM" + b"\0" * 99,
    "elf": b"\x7fELF" + b"\0" * 99,
    "text": b"hello" * 99,
    "png in base64": b"iVBORw0KGgoAAAANSUhEUgAA",
}


@pytest.mark.parametrize("name", TYPES)
def test_other_types_are_unsupported(name):
    assert answer(TYPES[name]) == (415, "unsupported_media_type", "wrong_type")


REFUSED = {
    "png bomb": (hostile.bomb(30_000, 30_000), "too_many_pixels"),
    "png of 4 000 001 pixels": (hostile.bomb(4_000_001, 1), "too_many_pixels"),
    "png of 2^31 - 1": (hostile.bomb(2**31 - 1, 2**31 - 1), "too_many_pixels"),
    "jpeg bomb": (hostile.jpeg_of(65_535, 65_535), "too_many_pixels"),
    "jpeg of no size": (hostile.jpeg_of(0, 0), "damaged"),
    "jpeg of 65 scans": (hostile.many_scans(64), "too_many_scans"),
    "one pixel": (encoded(RAMP[:1, :1]), "too_small"),
    "8 × 8": (encoded(RAMP[:8, :8]), "too_small"),
    "5 × 4000": (encoded(np.zeros((5, 4000), np.uint8)), "too_small"),
    "16 × 400": (encoded(np.resize(RAMP, (16, 400))), "extreme_aspect"),
    "blank": (encoded(np.full((64, 64), 9, np.uint8)), "blank"),
    "colour": (encoded(RGB), "not_grayscale"),
    "16-bit colour": (hostile.sixteen_bit_rgb(), "not_grayscale"),
    "cmyk": (encoded(Image.fromarray(RAMP).convert("CMYK"), "JPEG"), "cmyk"),
    "animated": (hostile.animated(), "animated"),
    "png magic alone": (b"\x89PNG\r\n\x1a\n", "truncated"),
    "jpeg magic alone": (b"\xff\xd8\xff", "truncated"),
    "flipped bit": (
        bytes(b ^ (4 if i == 60 else 0) for i, b in enumerate(encoded(RAMP))),
        "damaged",
    ),
    "no header chunk": (hostile.png((b"IDAT", b""), (b"IEND", b"")), "damaged"),
    "no pixels": (hostile.png((b"IHDR", hostile.header(64, 64)), (b"IEND", b"")), "damaged"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused_with_its_reason(name):
    data, reason = REFUSED[name]
    assert answer(data) == (422, "refused_image", reason)


@pytest.mark.parametrize("name", [b"zTXt", b"iTXt", b"iCCP"])
def test_a_text_bomb_is_not_unpacked(name):
    import zlib

    packed = zlib.compress(b"A" * 80_000_000)
    body = {b"zTXt": b"k\0\0", b"iTXt": b"k\0\1\0\0\0", b"iCCP": b"k\0\0"}[name] + packed
    (outcome,) = GREY.admit_many([[hostile.with_chunk(name, body)]])
    # Pillow stops unpacking early: the file is refused, or stripped of it.
    if isinstance(outcome, ServingError):
        assert outcome.details["reason"] == "damaged"
    else:
        assert len(outcome.encoded()[0]) < 10_000


def test_more_bytes_than_allowed_are_too_large():
    small = Admission(Limits(max_image_bytes=100), 1)
    assert answer(encoded(NOISE), small) == (413, "too_large", "too_large")


def test_more_pixels_than_allowed_are_refused():
    small = Admission(Limits(max_pixels=96 * 80 - 1), 1)
    assert answer(encoded(RAMP), small) == (422, "refused_image", "too_many_pixels")
    assert pixels(encoded(RAMP), Admission(Limits(max_pixels=96 * 80), 1)).shape == (80, 96)


CONVERTED = {
    "grey": (encoded(RAMP), RAMP),
    "palette": (encoded(Image.fromarray(RGB[..., [0, 0, 0]]).quantize(256)), RAMP),
    "1 bit": (encoded(Image.fromarray(RAMP > 100)), np.where(RAMP > 100, 255, 0)),
    "grey with alpha": (
        encoded(Image.merge("LA", [Image.fromarray(RAMP), Image.fromarray(RAMP // RAMP.max())])),
        None,
    ),
    "nearly grey": (encoded(np.stack([RAMP, RAMP + 2, RAMP], -1)), RAMP + 1),
    "16 bits": (encoded(Image.fromarray(RAMP.astype(np.uint16) * 13)), None),
}


@pytest.mark.parametrize("name", CONVERTED)
def test_converted_explicitly(name):
    data, expected = CONVERTED[name]
    made = pixels(data)
    assert made.dtype == np.uint8
    assert made.shape == RAMP.shape
    if expected is not None:
        assert np.abs(made.astype(int) - expected).max() <= 1


def test_16_bits_are_windowed_never_wrapped():
    made = pixels(encoded(Image.fromarray(RAMP.astype(np.uint16) * 257))).astype(int)
    assert (np.diff(made[0]) >= 0).all()
    assert made[0, 0] == 0
    assert made[0, -1] == 255


def test_transparency_is_on_black():
    alpha = np.full_like(RAMP, 255)
    alpha[:40] = 0
    made = pixels(encoded(np.dstack([RAMP, RAMP, RAMP, alpha])))
    assert not made[:40].any()
    np.testing.assert_array_equal(made[40:], RAMP[40:])


def test_a_colour_model_takes_colour_and_describes_its_luma():
    admitted = COLOUR.admit([encoded(RGB)])
    np.testing.assert_array_equal(admitted.pixels[0], RGB)
    luma = np.asarray(Image.fromarray(RGB).convert("L"))
    for name, values in describe([luma]).items():
        np.testing.assert_array_equal(admitted.descriptors[name], values)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied_once(kind, orientation):
    upright = {
        1: RAMP,
        2: RAMP[:, ::-1],
        3: RAMP[::-1, ::-1],
        4: RAMP[::-1],
        5: RAMP.T,
        6: np.rot90(RAMP, -1),
        7: RAMP[::-1, ::-1].T,
        8: np.rot90(RAMP),
    }[orientation]
    admitted = GREY.admit([hostile.oriented(RAMP, orientation, kind)])
    assert np.abs(admitted.pixels[0].astype(int) - upright).max() <= 6
    again = GREY.admit(admitted.encoded())
    np.testing.assert_array_equal(again.pixels[0], admitted.pixels[0])


POLYGLOTS = {
    "png and zip": encoded(RAMP) + b"PK\x03\x04" + CANARY.encode(),
    "png and html": encoded(RAMP) + f"<script>{CANARY}</script>".encode(),
    "jpeg and zip": encoded(RAMP, "JPEG") + b"PK\x03\x04" + CANARY.encode(),
    "jpeg and jpeg": encoded(RAMP, "JPEG") * 2 + CANARY.encode() + b"\xff\xd9",
    "png text": hostile.with_chunk(b"tEXt", b"Name\0" + CANARY.encode()),
    "png private chunk": hostile.with_chunk(b"prVt", CANARY.encode()),
    "png exif": hostile.oriented(RAMP, 6),
    "jpeg exif": hostile.oriented(RAMP, 6, "JPEG"),
    "jpeg comment": encoded(RAMP, "JPEG", comment=CANARY.encode()),
}


@pytest.mark.parametrize("name", POLYGLOTS)
def test_what_hides_in_a_file_goes_no_further(name):
    data = POLYGLOTS[name]
    assert CANARY.encode() in data
    admitted = GREY.admit([data])
    (made,) = admitted.encoded()
    assert CANARY.encode() not in made
    again = Image.open(io.BytesIO(made))
    assert (again.format, again.mode, again.info) == ("PNG", "L", {})
    np.testing.assert_array_equal(np.asarray(again), admitted.pixels[0])


def test_a_refusal_repeats_nothing_of_the_file():
    name = CANARY.encode()
    broken = encoded(RAMP)
    files = [
        name * 9,
        b"<svg>" + name,
        broken[:33] + hostile.chunk(name[:4], name)[:-1] + b"x" + broken[33:],
        hostile.png((name[:4], name), (b"IEND", b"")),
        broken[:60] + name + broken[60:],
        encoded(NOISE, "JPEG", comment=name)[:-40],
        hostile.with_chunk(b"tEXt", name)[:-30],
        encoded(RGB, "JPEG", comment=name),
    ]
    for data in files:
        error = refusal(data)
        said = f"{error}{error.details}{error!r}"
        assert CANARY[:4] not in said
        assert "0x" not in said


def test_metadata_that_the_decoder_trips_over_is_refused(caplog):
    """Fuzzing found a mutant on whose EXIF Pillow raised `struct.error` after decoding."""
    from ingest import images

    def trip(*_):
        raise struct.error(CANARY)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(images, "_upright", trip)
        error = refusal(encoded(RAMP))
    assert (error.code, error.details["reason"]) == ("refused_image", "damaged")
    assert CANARY not in caplog.text
    assert "error" in caplog.text
    assert error.__cause__ is None


def test_the_place_of_the_bad_image_is_told():
    good = encoded(RAMP)
    with pytest.raises(ServingError) as caught:
        GREY.admit([good, good, b"GIF89a"])
    assert caught.value.details == {"instance": 2, "reason": "wrong_type"}


def test_requests_fail_each_by_itself_and_agree_with_one_at_a_time(gated):
    admission = Admission(Limits(), 1, gated.gate)
    good = [encoded(one) for one in gated.slices[:3]]
    wrong = encoded(gated.slices[0][::-1])
    batches = [good, [wrong], [good[0], b""], [], [good[2], wrong]]
    outcomes = admission.admit_many(batches)
    kinds = [one.code if isinstance(one, ServingError) else "ok" for one in outcomes]
    ood = "out_of_distribution"
    assert kinds == ["ok", ood, "refused_image", "ok", ood]
    assert outcomes[4].details["instances"][0]["instance"] == 1
    alone = admission.admit(good)
    for name in NAMES:
        np.testing.assert_allclose(
            outcomes[0].descriptors[name], alone.descriptors[name], rtol=1e-4, atol=1e-5
        )


def test_descriptors_are_left_out_where_nobody_asks(gated):
    plain = Admission(Limits(), 1, describe=False)
    assert plain.admit([encoded(RAMP)]).descriptors is None
    assert isinstance(plain.admit_many([[b""], [encoded(RAMP)]])[1], Admitted)
    assert (
        Admission(Limits(), 1, gated.gate, describe=False)
        .admit([encoded(gated.slices[0])])
        .descriptors
    )


def skull(image):
    """A bright ring of bone around the brain, which training images do not have."""
    axis = (np.arange(64) + 0.5) / 32 - 1
    radius = np.hypot(axis[:, None] / 0.95, axis[None, :] / 0.92)
    return np.where((radius > 0.9) & (radius < 1), 230, image).astype(np.uint8)


UNLIKE = {
    "upside down": lambda image: image[::-1],
    "turned by 90°": np.rot90,
    "turned by 180°": lambda image: image[::-1, ::-1],
    "with its skull": skull,
    "inverted": lambda image: 255 - image,
    "noise": lambda image: np.random.default_rng(1).integers(0, 255, image.shape, np.uint8),
    "ramp": lambda image: RAMP,
    "text on white": lambda image: np.where(NOISE > 240, 0, 255).astype(np.uint8),
    "half a brain": lambda image: np.hstack([image[:, :32], np.zeros_like(image[:, 32:])]),
    "two brains": lambda image: np.hstack([image, image]),
}


@pytest.mark.parametrize("name", UNLIKE)
def test_other_pictures_are_out_of_distribution(gated, name):
    admission = Admission(Limits(), 1, gated.gate)
    image = np.ascontiguousarray(UNLIKE[name](gated.slices[3]))
    with pytest.raises(ServingError) as caught:
        admission.admit([encoded(image)])
    error = caught.value
    assert (error.http_status, error.code) == (422, "out_of_distribution")
    (told,) = error.details["instances"]
    assert told["instance"] == 0
    assert told["score"] > 1
    assert 1 <= len(told["failing"]) <= 3
    assert {one["name"] for one in told["failing"]} <= set(NAMES)
    said = json.dumps(error.details, allow_nan=False) + str(error)
    assert "Demented" not in said


def test_upside_down_is_said(gated):
    admission = Admission(Limits(), 1, gated.gate)
    outcomes = admission.admit_many([[encoded(one[::-1])] for one in gated.slices[:80]])
    codes = [getattr(one, "code", "ok") for one in outcomes]
    assert codes.count("out_of_distribution") >= 0.95 * len(codes)
    reasons = [one.details["reason"] for one in outcomes if isinstance(one, ServingError)]
    assert reasons.count("orientation") >= 0.9 * len(reasons)


def test_upside_down_by_exif_is_upright(gated):
    """The camera's own word is heeded before the gate looks."""
    admission = Admission(Limits(), 1, gated.gate)
    assert admission.admit([hostile.oriented(gated.slices[5][::-1], 4)]).pixels


def test_unseen_people_are_admitted(gated):
    admission = Admission(Limits(), 1, gated.gate)
    outcomes = admission.admit_many([[encoded(one)] for one in gated.slices])
    refused = [one for one in outcomes if isinstance(one, ServingError)]
    assert len(refused) <= 0.02 * len(outcomes)


def test_a_long_list_of_refusals_is_cut(gated):
    admission = Admission(Limits(), 1, gated.gate)
    with pytest.raises(ServingError) as caught:
        admission.admit([encoded(NOISE)] * 40)
    assert len(caught.value.details["instances"]) == 16
    assert "40 of 40" in str(caught.value)


def python(code, stdin=b""):
    return subprocess.run(
        [sys.executable, "-c", code], check=False, input=stdin, capture_output=True
    )


def test_admission_needs_no_tensorflow():
    code = (
        "import sys; import serving.admission, trainer.input_gate; "
        "sys.exit(any(name.split('.')[0] in ('tensorflow', 'keras') for name in sys.modules))"
    )
    assert python(code).returncode == 0


def test_the_decoder_writes_to_no_log():
    """Metadata that is cut short makes Pillow warn, once for each file."""
    exif = hostile.oriented(RAMP, 6, "JPEG")
    at = exif.index(b"Exif")
    broken = exif[: at + 6] + exif[at + 6 : at + 14] + b"\xff\x7f" + exif[at + 16 :]
    code = (
        "import sys; from serving.admission import Admission; from serving.config import Limits; "
        "Admission(Limits(), 1).admit_many([[sys.stdin.buffer.read()]])"
    )
    done = python(code, broken)
    assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")
    loud = python(
        code.replace("Admission(", "import warnings; warnings.resetwarnings(); Admission("), broken
    )
    assert b"Warning" in loud.stderr
