"""Every look at a test split stays on record."""

import concurrent.futures
import json
import multiprocessing
import uuid

import pytest

from evaluation.touches import FILE, TouchError, record
from schema import places


def lines(folder):
    return [json.loads(line) for line in (folder / FILE).read_text().splitlines()]


def test_counts_candidates_not_looks(tmp_path):
    folder = tmp_path / "made"
    assert record(folder, people="p", candidate="a") == 1
    assert record(folder, people="p", candidate="a") == 1
    assert record(folder, people="p", candidate="b") == 2
    assert record(folder, people="other", candidate="b") == 1
    assert record(folder, people="p", candidate="a") == 2
    assert [(it["people"], it["candidate"]) for it in lines(folder)] == [
        ("p", "a"), ("p", "b"), ("other", "b"),
    ]  # fmt: skip


def touch(folder, candidate):
    return record(folder, people="p", candidate=candidate)


def test_processes_at_once_lose_nothing(tmp_path):
    context = multiprocessing.get_context("fork")
    with concurrent.futures.ProcessPoolExecutor(4, mp_context=context) as pool:
        asked = [pool.submit(touch, tmp_path, f"c{n % 12}") for n in range(24)]
        counts = [it.result() for it in asked]
    assert len(lines(tmp_path)) == 12
    assert max(counts) == 12


def test_half_a_line_of_a_power_cut_is_written_anew(tmp_path):
    record(tmp_path, people="p", candidate="a")
    with open(tmp_path / FILE, "a") as file:
        file.write('{"people": "p", "candi')
    assert record(tmp_path, people="p", candidate="b") == 2
    assert [it["candidate"] for it in lines(tmp_path)] == ["a", "b"]


def test_a_damaged_record_is_not_begun_anew(tmp_path):
    record(tmp_path, people="p", candidate="a")
    (tmp_path / FILE).write_text("rubbish\n")
    with pytest.raises(TouchError, match="rubbish"):
        record(tmp_path, people="p", candidate="b")


def test_a_look_that_cannot_be_recorded_is_an_error(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(TouchError, match="Make the folder writable"):
        record(tmp_path / "file", people="p", candidate="a")
    with pytest.raises(TouchError, match=r"unheard://of/touches.*Make the folder writable"):
        record("unheard://of/touches", people="p", candidate="a")


def test_behind_an_address_each_look_is_an_object():
    address = f"ram://{uuid.uuid4().hex}/touches"
    counted = [
        record(address, people=people, candidate=candidate)
        for people, candidate in (("p", "a"), ("p", "a"), ("p", "b"), ("q", "b"), ("p", "a"))
    ]
    assert counted == [1, 1, 2, 1, 2]
    [look] = places.listed(f"{address}/q")
    kept = json.loads(places.read_bytes(f"{address}/q/{look}"))
    assert (kept["people"], kept["candidate"]) == ("q", "b")
