"""Signatures of manifests: HMAC-SHA-256 with a shared secret, or ed25519 with a pair of keys.

A manifest holds the SHA-256 of every file, so its signature vouches for the whole version. With
ed25519 (RFC 8032) servers hold only the public key: they can check versions and make none.
"""

import contextlib
import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from registry import keys
from registry.interface import RegistryError, VerificationError
from registry.keys import Keys

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import (
        Ed25519PrivateKey,
        Ed25519PublicKey,
    )

HMAC = "hmac-sha256"
ED25519 = "ed25519"

_PURPOSE = b"cortexflow manifest 1\n"  # a signature for another purpose is none for this one


def sign(content: bytes, path: Path) -> bytes:
    """Signs a manifest's bytes with the key in the file `path`; returns the signature file's bytes.

    Raises:
        RegistryError: the file holds no key that signs.
    """
    key = keys.read(path)
    if _is_pem(key):
        algorithm, signature = ED25519, _private(key, path).sign(_PURPOSE + content)
    else:
        algorithm, signature = HMAC, _hmac(keys.secret(path), content)
    fields = {"algorithm": algorithm, "signature": signature.hex()}
    return json.dumps(fields, sort_keys=True).encode() + b"\n"


def check(content: bytes, signed: bytes | None, origin: str, where: Keys) -> None:
    """Proves that a manifest was signed with a key that is trusted here.

    Without any key that checks, nothing is asked of a manifest.

    Args:
        content: the manifest's bytes.
        signed: the signature file's bytes, None where there is none.
        origin: the manifest's name, for messages.
        where: the keys.

    Raises:
        VerificationError: the manifest is not signed, or not by this key.
        RegistryError: the key cannot be read.
    """
    path = where.verify or where.signing
    if path is None:
        return
    if signed is None:
        raise VerificationError(
            f"{origin} is not signed, and a key is set ({path}). Have "
            "someone with the signing key run `cortexflow sign`."
        )
    try:
        fields = json.loads(signed)
        algorithm, value = fields["algorithm"], bytes.fromhex(fields["signature"])
    except (ValueError, TypeError, KeyError) as error:
        raise VerificationError(f"The signature of {origin} is damaged: {error}.") from error
    key = keys.read(path)
    expected = ED25519 if _is_pem(key) else HMAC
    if algorithm != expected:
        raise VerificationError(
            f"{origin} is signed with {algorithm!r}, and the key {path} is for {expected}."
        )
    if not _verifies(key, path, content, value):
        raise VerificationError(
            f"{origin} is not signed by the key {path}, or was changed after it was signed."
        )


def _verifies(key: bytes, path: Path, content: bytes, signature: bytes) -> bool:
    if not _is_pem(key):
        return hmac.compare_digest(_hmac(keys.secret(path), content), signature)
    from cryptography.exceptions import InvalidSignature

    try:
        _public(key, path).verify(signature, _PURPOSE + content)
    except InvalidSignature:
        return False
    return True


def _hmac(secret: bytes, content: bytes) -> bytes:
    return hmac.digest(secret, _PURPOSE + content, "sha256")


def _is_pem(key: bytes) -> bool:
    return key.startswith(b"-----BEGIN")


def _private(key: bytes, path: Path) -> "Ed25519PrivateKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key

    with _usable(path):
        loaded = load_pem_private_key(key, None)
    if not isinstance(loaded, Ed25519PrivateKey):
        raise _wrong_kind(loaded, path)
    return loaded


def _public(key: bytes, path: Path) -> "Ed25519PublicKey":
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
    from cryptography.hazmat.primitives.serialization import load_pem_public_key

    if b"PRIVATE KEY" in key:
        return _private(key, path).public_key()
    with _usable(path):
        loaded = load_pem_public_key(key)
    if not isinstance(loaded, Ed25519PublicKey):
        raise _wrong_kind(loaded, path)
    return loaded


@contextlib.contextmanager
def _usable(path: Path) -> Iterator[None]:
    from cryptography.exceptions import UnsupportedAlgorithm

    try:
        yield
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise RegistryError(f"{path} holds no usable PEM key without password: {error}") from error


def _wrong_kind(loaded: object, path: Path) -> RegistryError:
    return RegistryError(
        f"{path} holds a key of another kind ({type(loaded).__name__}); ed25519 is needed. "
        "Make one: openssl genpkey -algorithm ed25519."
    )
