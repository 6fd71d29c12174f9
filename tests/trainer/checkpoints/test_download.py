"""Downloads from a bucket on this machine that breaks off, lies, and changes its mind."""

import io
import json
import random
import socket
import tarfile
from concurrent.futures import ThreadPoolExecutor

import pytest
from bucket import Bucket, served

from trainer.checkpoints import download, places
from trainer.checkpoints.errors import DownloadError, UnknownCheckpoint
from trainer.checkpoints.locations import locate
from trainer.config import BackboneSettings

URL = "gs://simclr-checkpoints-tf2/simclrv2/pretrained/r50_1x_sk0/saved_model"
PREFIX = "simclrv2/pretrained/r50_1x_sk0/saved_model/"
DATA = "variables/variables.data-00000-of-00001"
FILES = {
    "saved_model.pb": b"graph",
    "variables/variables.index": b"",
    DATA: random.Random(0).randbytes(300_000),
}


@pytest.fixture
def bucket(monkeypatch):
    objects = {PREFIX + name: data for name, data in FILES.items()}
    with served(Bucket({**objects, PREFIX: b"", "other/file": b"not asked for"})) as found:
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", found.address)
        yield found


def fetched(folder):
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file() and path.name != places.MANIFEST
    }


def test_a_folder_arrives_whole_and_once(bucket, tmp_path):
    seen = []
    target = tmp_path / "saved_model"
    assert download.folder(URL, target, lambda *told: seen.append(told)) == target
    assert fetched(target) == FILES
    assert seen[-1][1:] == (300_005, 300_005)
    assert [done for _, done, _ in seen] == sorted(done for _, done, _ in seen)
    record = json.loads((target / places.MANIFEST).read_text())
    assert record["files"][DATA] == [300_000, 1]
    sent = bucket.sent
    download.folder(URL, target)
    assert bucket.sent == sent


def test_a_cut_download_goes_on_where_it_stopped(bucket, tmp_path):
    bucket.cut_after = 100_000
    del bucket.objects[PREFIX + "saved_model.pb"]  # so that the cut hits the long file
    with pytest.raises(DownloadError, match="the same command goes on from there"):
        download.folder(URL, tmp_path / "model", patience=())
    assert not (tmp_path / "model").exists()
    download.folder(URL, tmp_path / "model", patience=())
    assert [first for _, first, _ in bucket.ranges] == [0, 100_000]
    assert bucket.sent == 300_000
    assert fetched(tmp_path / "model")[DATA] == FILES[DATA]


def test_a_short_interruption_is_not_even_told(bucket, tmp_path):
    bucket.cut_after = 2
    download.folder(URL, tmp_path / "model", patience=(0.0,))
    assert fetched(tmp_path / "model") == FILES
    assert bucket.sent == 300_005


@pytest.mark.parametrize("composed", [False, True], ids=["md5", "crc32c"])
def test_bytes_that_do_not_match_are_thrown_away(bucket, tmp_path, composed):
    bucket.spoil, bucket.composed = True, composed
    with pytest.raises(DownloadError, match=r"saved_model\.pb .* another checksum"):
        download.folder(URL, tmp_path / "model")
    bucket.spoil = False
    download.folder(URL, tmp_path / "model")
    assert fetched(tmp_path / "model") == FILES


def test_an_object_replaced_in_between_starts_anew(bucket, tmp_path):
    del bucket.objects[PREFIX + "saved_model.pb"]
    bucket.cut_after = 100_000
    with pytest.raises(DownloadError):
        download.folder(URL, tmp_path / "model", patience=())
    bucket.objects[PREFIX + DATA] = FILES[DATA][::-1]
    bucket.generation = 2
    download.folder(URL, tmp_path / "model", patience=())
    assert fetched(tmp_path / "model")[DATA] == FILES[DATA][::-1]
    assert bucket.ranges[-1][1] == 0


def test_what_the_bucket_no_longer_lists_is_not_kept(bucket, tmp_path):
    for name in ("a", "b/c", ".gone.1.part"):
        earlier = tmp_path / "model.partial" / name
        earlier.parent.mkdir(parents=True, exist_ok=True)
        earlier.write_bytes(b"x")
    bucket.objects = {PREFIX + "a/b": b"x", PREFIX + "b": b"y"}
    download.folder(URL, tmp_path / "model", patience=())
    assert fetched(tmp_path / "model") == {"a/b": b"x", "b": b"y"}


def test_a_folder_without_its_record_is_no_download(bucket, tmp_path):
    (tmp_path / "model" / "variables").mkdir(parents=True)
    (tmp_path / "model" / "stray").write_bytes(b"x")
    download.folder(URL, tmp_path / "model")
    assert fetched(tmp_path / "model") == FILES


def test_two_processes_fetch_once(bucket, tmp_path):
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: download.folder(URL, tmp_path / "model"), range(2)))
    assert bucket.sent == 300_005


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"objects": {}}, "holds no files"),
        ({"objects": {PREFIX + "../../evil": b"x"}}, "a file outside its folder"),
        ({"objects": {PREFIX + "/etc/evil": b"x"}}, "a file outside its folder"),
        ({"objects": {PREFIX + "a": b"x", PREFIX + "a/b": b"x"}}, "a file and a folder at once"),
        ({"objects": {PREFIX + "a//b": b"x"}}, "no folder here can have"),
        ({"objects": {PREFIX + places.MANIFEST: b"x"}}, "the name of the record"),
        ({"empty": True}, "no bytes came of .* after byte 0"),
        ({"refuse": 404}, "is not there for everybody"),
        ({"refuse": 403}, "is not there for everybody"),
        ({"refuse": 503}, "cannot be reached"),
    ],
)
def test_what_cannot_be_fetched_is_told(bucket, tmp_path, change, message):
    for name, value in change.items():
        setattr(bucket, name, value)
    with pytest.raises(DownloadError, match=message):
        download.folder(URL, tmp_path / "model", patience=(0.0,))
    assert not (tmp_path / "model").exists()


def test_without_a_network_the_user_learns_what_to_do(monkeypatch, tmp_path):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        host = f"127.0.0.1:{closed.getsockname()[1]}"
        monkeypatch.setenv("STORAGE_EMULATOR_HOST", f"http://{host}")
        with pytest.raises(DownloadError) as caught:
            download.folder(URL, tmp_path / "model", patience=())
    assert str(caught.value).startswith(f"No connection to {host}. Without a network here, run `gs")
    assert f"`gsutil -m cp -r {URL} DEST`" in str(caught.value)
    assert "--set pretrain=null --set checkpoint=DEST" in str(caught.value)


@pytest.mark.parametrize(
    "text", ["simclrv2/pretrained/r50_1x_sk0", URL, f"{URL}/", URL.removeprefix("gs://")]
)
def test_alias_and_address_lead_to_one_download(bucket, tmp_path, text):
    if text.startswith("simclr-checkpoints"):
        with pytest.raises(UnknownCheckpoint):
            locate(text, tmp_path)
        return
    found = locate(text, tmp_path)
    assert found.path == places.kept_at(URL, tmp_path)
    assert (found.anew, locate(text, tmp_path).anew) == (True, False)
    assert found.expected == BackboneSettings(depth=50)
    assert fetched(found.path) == FILES


def test_another_bucket_promises_no_network(bucket, tmp_path):
    assert locate("gs://mine/other", tmp_path).expected is None


def test_an_archive_is_unpacked_by_tensorflow_hub(bucket, tmp_path):
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz") as archive:
        entry = tarfile.TarInfo("saved_model.pb")
        entry.size = 5
        archive.addfile(entry, io.BytesIO(b"graph"))
    bucket.objects["model.tar.gz"] = packed.getvalue()
    found = locate(f"{bucket.address}/model.tar.gz", tmp_path)
    assert found.path.is_relative_to(tmp_path)
    assert (found.path / "saved_model.pb").read_bytes() == b"graph"
    assert places.is_kept(found.path)
    del bucket.objects["model.tar.gz"]
    again = locate(f"{bucket.address}/model.tar.gz", tmp_path)
    assert (again.path, again.anew) == (found.path, False)
    bucket.objects["broken.tar.gz"] = b"no archive"
    with pytest.raises(DownloadError, match="could not be fetched or unpacked"):
        locate(f"{bucket.address}/broken.tar.gz", tmp_path)
    with pytest.raises(DownloadError, match="Use its https:// address"):
        locate("http://models.example/model.tar.gz", tmp_path)


def test_other_file_systems_are_read_through_tensorflow(tmp_path):
    source = tmp_path / "source"
    (source / "variables").mkdir(parents=True)
    (source / "saved_model.pb").write_bytes(b"graph")
    (source / "variables" / "variables.index").write_bytes(b"index")
    found = locate(f"file://{source}", tmp_path / "cache")
    assert fetched(found.path) == fetched(source)
    assert places.is_kept(found.path)
    (found.path / places.MANIFEST).unlink()
    (found.path / "saved_model.pb").unlink()
    assert fetched(locate(f"file://{source}", tmp_path / "cache").path) == fetched(source)
    with pytest.raises(DownloadError, match="no folder"):
        locate(f"file://{tmp_path}/absent", tmp_path / "cache")


def test_a_path_that_is_there_is_taken(tmp_path):
    assert locate(str(tmp_path), tmp_path / "cache").path == tmp_path
    with pytest.raises(UnknownCheckpoint, match="no alias"):
        locate(str(tmp_path / "absent"), tmp_path / "cache")
