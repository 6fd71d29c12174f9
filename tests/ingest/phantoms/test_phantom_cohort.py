import hashlib
import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from ingest.phantom import PhantomSpec, SpecError, cohort, generate, load_spec, load_truth
from ingest.phantom import render_subject as render
from ingest.phantom.subject import MASKS
from schema.features import ALZHEIMER_CLASSES

SPEC = PhantomSpec(subjects=(3, 2, 2, 1), slices=4, site=(0, 2))
# Of SPEC: a change here is a change of what every user generates, and asks for a new
# GENERATOR_VERSION.
LATENTS_SHA256 = "1d9d8be08f2aecfdeda5d8d02693533279820b481e454f38aa3431122fa7d1c0"
MASKS_SHA256 = "cde20a651e844962915729d5d136a8d2413be3c714265c7770d930c4dbeefed9"


def digests(spec: PhantomSpec) -> tuple[str, str]:
    """SHA-256 of all latents, in units of 1e-9, and of all masks."""
    latents, masks = hashlib.sha256(), hashlib.sha256()
    for index in range(len(spec)):
        subject = render(spec, index)
        latents.update(np.rint(np.array(subject.latents) * 1e9).astype("<i8").tobytes())
        for name in MASKS:
            masks.update(np.packbits(subject.masks[name]).tobytes())
    return latents.hexdigest(), masks.hexdigest()


def content(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def generated(tmp_path_factory) -> Path:
    return generate(SPEC, tmp_path_factory.mktemp("cache"), workers=1)


def test_latents_and_masks_are_pinned():
    assert digests(SPEC) == (LATENTS_SHA256, MASKS_SHA256)


@pytest.mark.parametrize(
    "machine",
    [
        {"OPENBLAS_CORETYPE": "Nehalem", "OPENBLAS_NUM_THREADS": "1"},
        {"NPY_DISABLE_CPU_FEATURES": "AVX512F AVX512CD AVX512_SKX"},
    ],
)
def test_another_process_on_another_kind_of_processor_gives_the_same_bytes(machine):
    if "NPY_DISABLE_CPU_FEATURES" in machine and "avx512f" not in _processor_flags():
        pytest.skip("this processor has no AVX-512 to switch off")
    script = (
        "import hashlib\n"
        "from ingest.phantom import PhantomSpec, render_subject\n"
        f"spec = PhantomSpec.from_dict({SPEC.to_dict()!r})\n"
        "data = [b''.join(render_subject(spec, i).encoded) for i in range(len(spec))]\n"
        "print(hashlib.sha256(b''.join(data)).hexdigest())\n"
    )
    root = Path(cohort.__file__).parents[2]
    output = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, **machine, "PYTHONPATH": str(root)},
        check=True,
        capture_output=True,
        text=True,
    ).stdout
    here = b"".join(b"".join(render(SPEC, index).encoded) for index in range(len(SPEC)))
    assert output.strip() == hashlib.sha256(here).hexdigest()


def _processor_flags() -> str:
    path = Path("/proc/cpuinfo")
    return path.read_text() if path.is_file() else ""


def test_any_number_of_workers_writes_the_same_bytes(generated, tmp_path):
    calls = []
    other = generate(SPEC, tmp_path, workers=2, progress=lambda *args: calls.append(args))
    assert content(other) == content(generated)
    assert calls == [(done, len(SPEC)) for done in range(1, len(SPEC) + 1)]


def test_the_folder_is_named_by_content_and_holds_what_it_says(generated):
    assert generated.name == SPEC.fingerprint()
    files = content(generated)
    assert len(files) == len(SPEC) * SPEC.slices + 2
    manifest = json.loads(files["phantom.json"])
    assert manifest["images"] == len(SPEC) * SPEC.slices
    assert load_spec(generated) == SPEC
    assert sorted(p.name for p in (generated / "images").iterdir()) == sorted(ALZHEIMER_CLASSES)
    first = np.asarray(Image.open(generated / "images/NonDemented/subj0001_slice00.jpg"))
    np.testing.assert_array_equal(first, render(SPEC, 0).images[0])


def test_the_truth_is_the_subjects(generated):
    truth = load_truth(generated)
    assert len(set(truth.ids)) == len(SPEC)
    for index in range(len(SPEC)):
        subject = render(SPEC, index)
        assert truth.ids[index] == subject.id
        assert truth.labels[index] == subject.label
        assert truth.sites[index] == subject.site
        assert tuple(truth.latents[index]) == subject.latents
        np.testing.assert_array_equal(truth.vbr[index], subject.vbr)
        for name in MASKS:
            np.testing.assert_array_equal(truth.mask(name, index), subject.masks[name])


def test_a_complete_cache_is_returned_untouched(generated, monkeypatch):
    monkeypatch.setattr(cohort, "render_subject", None)
    assert generate(SPEC, generated.parent) == generated


def test_interrupted_work_never_looks_complete(tmp_path, monkeypatch):
    def interrupt(done, total):
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        generate(SPEC, tmp_path, workers=1, progress=interrupt)
    assert content(tmp_path).keys() <= {f".{SPEC.fingerprint()}.lock"}
    assert (generate(SPEC, tmp_path, workers=1) / "phantom.json").is_file()


def test_the_remains_of_a_killed_run_are_replaced(generated, tmp_path):
    remains = tmp_path / f".{SPEC.fingerprint()}.partial" / "images" / "NonDemented"
    remains.mkdir(parents=True)
    (remains / "subj9999_slice00.jpg").write_bytes(b"half a fi")
    assert content(generate(SPEC, tmp_path, workers=1)) == content(generated)


def test_callers_at_the_same_time_share_one_result(tmp_path, monkeypatch):
    rendered = []

    def counting(spec, index):
        rendered.append(index)
        return render(spec, index)

    monkeypatch.setattr(cohort, "render_subject", counting)
    callers = [threading.Thread(target=generate, args=(SPEC, tmp_path, 1)) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert sorted(rendered) == list(range(len(SPEC)))


@pytest.mark.parametrize("workers", [0, -2])
def test_workers_below_one_are_refused(tmp_path, workers):
    with pytest.raises(SpecError, match=f"Received: workers={workers}"):
        generate(SPEC, tmp_path, workers)


def test_a_folder_without_a_phantom_is_refused(tmp_path):
    with pytest.raises(SpecError, match=r"phantom\.json is missing"):
        load_truth(tmp_path)


def test_a_subject_is_the_same_whatever_else_is_generated():
    alone = render(PhantomSpec(subjects=(0, 0, 2, 0), slices=4), 1)
    among = [render(PhantomSpec(subjects=(4, 3, 5, 1), slices=4), index) for index in range(13)]
    twin = next(subject for subject in among if subject.id == alone.id)
    assert twin.encoded == alone.encoded
    assert twin.latents == alone.latents


def test_a_slice_is_the_same_in_any_selection_of_slices():
    few = render(PhantomSpec(subjects=(1, 0, 0, 0), slices=8), 0)
    every = render(PhantomSpec(subjects=(1, 0, 0, 0), slices=32), 0)
    positions = PhantomSpec(slices=8).positions.astype(int)
    assert few.encoded == tuple(every.encoded[position] for position in positions)


def test_ids_are_unique_and_sites_do_not_follow_class():
    spec = PhantomSpec(subjects=(4, 4, 4, 4), slices=1, site=(0, 1))
    subjects = [render(spec, index) for index in range(16)]
    assert len({subject.id for subject in subjects}) == 16
    for label in range(4):
        sites = [subject.site for subject in subjects if subject.label == label]
        assert sorted(sites) == [0, 0, 1, 1]


def test_an_index_out_of_range_is_refused():
    with pytest.raises(IndexError, match="Received: 8"):
        render(SPEC, len(SPEC))
