"""The real names of Google Cloud Storage in front of an emulated store, for programs as they come.

TensorFlow's `gs://` has `https://storage.googleapis.com` and `https://www.googleapis.com` built in
and takes no other address, but it heeds `https_proxy` and `CURL_CA_BUNDLE`. `google_storage` is
such a proxy: it ends TLS for these two names with a certificate of its own, made anew each time,
and hands the requests to the store. Google's token service it answers itself, since Beam asks for
credentials for half a minute before it goes on without. Any other name is refused, so nothing
leaves the machine.
"""

import contextlib
import datetime
import json
import socket
import socketserver
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

STORE = ("storage.googleapis.com", "www.googleapis.com")
TOKENS = "oauth2.googleapis.com"
NAMES = (*STORE, TOKENS)
TOKEN = {"access_token": "anybody", "token_type": "Bearer", "expires_in": 3600}
# Of nobody: the service above gives everyone the same token.
NOBODY = {"type": "authorized_user", "client_id": "n", "client_secret": "n", "refresh_token": "n"}
LOOPBACK = "127.0.0.1"


@contextlib.contextmanager
def google_storage(storage_port: int, folder: Path) -> Iterator[dict[str, str]]:
    """Starts the proxy; ends it afterwards.

    Args:
        storage_port: of an emulated store on loopback (`tests.emulators.processes.storage`).
        folder: where the authority's certificate and credentials of nobody go.

    Yields:
        Environment with which TensorFlow, Beam and Google's client share the store.
    """
    authority, chain = folder / "authority.pem", folder / "server.pem"
    _certify(authority, chain)
    credentials = folder / "credentials.json"
    credentials.write_text(json.dumps(NOBODY))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(chain)
    context.set_alpn_protocols(["http/1.1"])

    class Connection(socketserver.BaseRequestHandler):
        """One tunnel."""

        def handle(self) -> None:
            """Answers `CONNECT name:443`, then carries bytes both ways until either side ends."""
            asked = _head(self.request)
            words = asked.split()
            name = words[1].rpartition(":")[0] if len(words) > 1 else ""
            if not asked.startswith("CONNECT ") or name not in NAMES:
                self.request.sendall(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 0\r\n\r\n")
                return
            self.request.sendall(b"HTTP/1.1 200 Connection established\r\n\r\n")
            with (
                contextlib.suppress(OSError),
                context.wrap_socket(self.request, server_side=True) as client,
            ):
                if name == TOKENS:
                    _give_token(client)
                else:
                    _forward(client, storage_port)

    class Proxy(socketserver.ThreadingTCPServer):
        """Serves each tunnel in a thread."""

        allow_reuse_address = True
        daemon_threads = True
        request_queue_size = 64

    with Proxy((LOOPBACK, 0), Connection) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://{LOOPBACK}:{server.server_address[1]}"
        yield {
            "STORAGE_EMULATOR_HOST": f"http://{LOOPBACK}:{storage_port}",
            "https_proxy": address,
            "http_proxy": address,
            "no_proxy": f"{LOOPBACK},localhost",
            "CURL_CA_BUNDLE": str(authority),
            "REQUESTS_CA_BUNDLE": str(authority),
            "GOOGLE_AUTH_TOKEN_FOR_TESTING": TOKEN["access_token"],
            "GOOGLE_APPLICATION_CREDENTIALS": str(credentials),
            "GOOGLE_CLOUD_PROJECT": "emulated",
            "NO_GCE_CHECK": "true",
        }
        server.shutdown()


def _give_token(client: socket.socket) -> None:
    _head(client)
    body = json.dumps(TOKEN).encode()
    head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\nConnection: close\r\n"
    client.sendall(head.encode() + b"Content-Type: application/json\r\n\r\n" + body)


def _forward(client: socket.socket, port: int) -> None:
    with socket.create_connection((LOOPBACK, port)) as store:
        back = threading.Thread(target=_carry, args=(store, client), daemon=True)
        back.start()
        _carry(client, store)
        back.join(10)


def _head(client: socket.socket) -> str:
    received = b""
    while b"\r\n\r\n" not in received and len(received) < 1 << 16:
        part = client.recv(4096)
        if not part:
            break
        received += part
    return received.decode("latin-1")


def _carry(source: socket.socket, target: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while part := source.recv(1 << 16):
            target.sendall(part)
    for end in (source, target):
        with contextlib.suppress(OSError):
            end.shutdown(socket.SHUT_RDWR)


def _certify(authority: Path, chain: Path) -> None:
    """Writes an authority's certificate, and the server's with its key; both end in a day."""
    now = datetime.datetime.now(datetime.UTC)
    root_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root_name, name = _named("emulated authority"), _named(NAMES[0])

    def certificate(subject: x509.Name, public, *, is_authority: bool) -> x509.CertificateBuilder:
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(root_name)
            .public_key(public)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - datetime.timedelta(hours=1))
            .not_valid_after(now + datetime.timedelta(days=1))
            .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        )

    root = certificate(root_name, root_key.public_key(), is_authority=True)
    alternatives = x509.SubjectAlternativeName([x509.DNSName(each) for each in NAMES])
    server = certificate(name, key.public_key(), is_authority=False)
    server = server.add_extension(alternatives, critical=False)
    signed = [each.sign(root_key, hashes.SHA256()) for each in (root, server)]
    pem = serialization.Encoding.PEM
    authority.write_bytes(signed[0].public_bytes(pem))
    chain.write_bytes(
        key.private_bytes(pem, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        + signed[1].public_bytes(pem)
    )


def _named(name: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
