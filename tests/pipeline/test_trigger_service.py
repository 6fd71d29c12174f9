"""What a trigger remembers, and whose tokens it takes."""

import asyncio
import datetime
import json
import os
import time
import types

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.auth import crypt
from google.auth import jwt as google_jwt
from google.auth.exceptions import TransportError

from pipeline.trigger_auth import Forbidden, KeysUnavailable, TokenCheck, Unauthorised
from pipeline.trigger_book import Book, BookError, Entry
from pipeline.trigger_http import TriggerApp
from pipeline.trigger_service import Trigger, TriggerSettings
from tests.pipeline.file_backend import FileBackend, submitted

AUDIENCE, SENDER = "https://trigger.example.org", "push@project.iam.gserviceaccount.com"
NOW = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)


def entry(key: str, **more) -> Entry:
    return Entry(**{"key": key, "dataset": "gs://d", "order": 1, "name": "n", "time": NOW} | more)


def test_a_book_keeps_the_newest_and_is_whole_on_disk(tmp_path):
    book = Book(tmp_path, keep=3)
    for number in range(5):
        book.write(entry(f"k{number}", order=number, run=f"r{number}"))
    book.write(entry("k2", order=2, run="again"))
    book.close()
    again = Book(tmp_path)
    assert len(again) == 3
    assert again.find("k1") is None
    assert again.find("k2").run == "again"
    assert again.newest("gs://d").key == "k4"
    again.close()
    assert sorted(os.listdir(tmp_path)) == ["book.json", "lock"]


def test_two_triggers_do_not_share_a_book(tmp_path):
    book = Book(tmp_path)
    with pytest.raises(BookError, match="Another trigger uses"):
        Book(tmp_path)
    book.close()
    Book(tmp_path).close()


@pytest.mark.parametrize("content", ["", "{", '{"entries": [{"key": 1}]}'])
def test_a_damaged_book_is_not_taken_for_an_empty_one(tmp_path, content):
    (tmp_path / "book.json").write_text(content)
    with pytest.raises(BookError, match="cannot be read"):
        Book(tmp_path)
    (tmp_path / "book.json").unlink()
    Book(tmp_path).close()  # and the folder was let go of


def test_a_folder_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(BookError, match="cannot write to"):
        Book(tmp_path / "file" / "state")


@pytest.fixture(scope="module")
def keys():
    """Two private keys, and the certificate of the first as Google publishes its own."""
    made = [rsa.generate_private_key(public_exponent=65537, key_size=2048) for _ in range(2)]
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "test")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(made[0].public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .sign(made[0], hashes.SHA256())
    )
    form = (
        serialization.Encoding.PEM,
        serialization.PrivateFormat.TraditionalOpenSSL,
        serialization.NoEncryption(),
    )
    private = [key.private_bytes(*form) for key in made]
    return private, certificate.public_bytes(serialization.Encoding.PEM).decode()


class Keys:
    """Stands where Google's certificates are fetched."""

    def __init__(self, certificate: str):
        self.calls, self.fails = 0, False
        self._certificate = certificate

    def __call__(self, url, method="GET", **_):
        self.calls += 1
        assert url.startswith("https://www.googleapis.com/")
        if self.fails:
            raise TransportError("no route to host")
        return types.SimpleNamespace(
            status=200,
            headers={"Cache-Control": "public, max-age=3600"},
            data=json.dumps({"first": self._certificate}).encode(),
        )


@pytest.fixture
def checked(keys):
    """A check, its source of keys, and a maker of headers."""
    private, certificate = keys
    source = Keys(certificate)

    def headers(signed_by=0, **claims):
        now = int(time.time())
        payload = {
            "aud": AUDIENCE,
            "email": SENDER,
            "email_verified": True,
            "exp": now + 600,
            "iat": now,
            "iss": "https://accounts.google.com",
            "sub": "1",
        } | claims
        signer = crypt.RSASigner.from_string(private[signed_by], key_id="first")
        return {"authorization": "Bearer " + google_jwt.encode(signer, payload).decode()}

    return TokenCheck(AUDIENCE, (SENDER,), source), source, headers


def test_a_token_of_the_sender_is_taken_and_keys_are_fetched_once(checked):
    check, source, headers = checked
    assert check(headers()) == check(headers()) == SENDER
    assert source.calls == 1


@pytest.mark.parametrize(
    "claims",
    [
        {"signed_by": 1},
        {"aud": "https://elsewhere.example.org"},
        {"exp": int(time.time()) - 3600, "iat": int(time.time()) - 7200},
        {"iss": "https://accounts.example.org"},
    ],
)
def test_a_token_that_does_not_hold_is_refused(checked, claims):
    check, _, headers = checked
    with pytest.raises(Unauthorised, match="not valid"):
        check(headers(**claims))


@pytest.mark.parametrize(
    "value", ["", "Bearer ", "Basic abc", "Bearer a.b.c", "Bearer a.b", "Bearer " + "a" * 9000]
)
def test_no_token_and_no_jwt_are_refused(checked, value):
    check, _, _ = checked
    with pytest.raises(Unauthorised):
        check({"authorization": value})


@pytest.mark.parametrize("claims", [{"email": "other@example.org"}, {"email_verified": False}])
def test_another_account_is_refused(checked, claims):
    check, _, headers = checked
    with pytest.raises(Forbidden, match="not accepted"):
        check(headers(**claims))


def test_without_keys_nobody_is_judged(checked):
    check, source, headers = checked
    source.fails = True
    with pytest.raises(KeysUnavailable):
        check(headers())


def asked(app: TriggerApp, headers: dict[str, str], body: bytes) -> tuple[int, dict[bytes, bytes]]:
    """Status and headers of a POST, given to the application itself."""
    sent = []

    async def receive():
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(event):
        sent.append(event)

    told = [(name.encode(), value.encode()) for name, value in headers.items()]
    scope = {"type": "http", "method": "POST", "path": "/", "headers": told}
    asyncio.run(app(scope, receive, send))
    return sent[0]["status"], dict(sent[0]["headers"])


def test_the_service_asks_for_the_token(checked, tmp_path):
    check, _, headers = checked
    (tmp_path / "runs").mkdir()
    settings = TriggerSettings(on="x", watch=("gs://scans",), debounce=0)
    data = {"bucketId": "scans", "objectId": "a/dataset.json", "objectGeneration": "1"}
    attributes = data | {"eventType": "OBJECT_FINALIZE"}
    body = json.dumps({"message": {"attributes": attributes}}).encode()

    def status(sent_headers):
        book = Book(tmp_path / "state")
        try:
            backend = FileBackend(tmp_path / "runs")
            return asked(
                TriggerApp(Trigger(settings, "p", book, lambda _: backend), check),
                sent_headers,
                body,
            )
        finally:
            book.close()

    code, told = status({})
    assert (code, told[b"www-authenticate"]) == (401, b"Bearer")
    assert status(headers(email="other@example.org"))[0] == 403
    assert submitted(tmp_path / "runs") == []
    assert status(headers())[0] == 200
    assert len(submitted(tmp_path / "runs")) == 1


def test_a_service_that_cannot_fetch_keys_asks_to_be_tried_again(checked, tmp_path):
    check, source, headers = checked
    source.fails = True
    settings = TriggerSettings(on="x", watch=("gs://scans",))
    book = Book(tmp_path)
    app = TriggerApp(Trigger(settings, "p", book, lambda _: None), check)
    code, told = asked(app, headers(), b"{}")
    assert (code, told[b"retry-after"]) == (503, b"10")
    book.close()


def test_a_disk_that_refuses_starts_nothing(tmp_path, monkeypatch):
    (tmp_path / "runs").mkdir()
    settings = TriggerSettings(on="x", watch=("gs://scans",), debounce=0)
    book = Book(tmp_path / "state")
    app = TriggerApp(Trigger(settings, "p", book, lambda _: FileBackend(tmp_path / "runs")), None)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("pipeline.trigger_book.write_text", full)
    resource = {"bucket": "scans", "name": "a/dataset.json", "generation": "1"}
    event = {"ce-type": "google.cloud.storage.object.v1.finalized", "ce-specversion": "1.0"}
    code, _ = asked(app, event, json.dumps(resource).encode())
    assert code == 503
    assert submitted(tmp_path / "runs") == []
    book.close()
