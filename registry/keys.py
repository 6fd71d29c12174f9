"""Keys for signatures and for the audit log: files that the environment names, never their content.

CORTEXFLOW_SIGNING_KEY_FILE   signs manifests: an ed25519 private key (PEM), or a shared
                              secret (HMAC-SHA-256) of 32 bytes and more
CORTEXFLOW_VERIFY_KEY_FILE    checks signatures: the ed25519 public key (PEM), or that secret
CORTEXFLOW_AUDIT_KEY_FILE     keys the audit log's hashes: a secret of 32 bytes and more
"""

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

from registry.interface import RegistryError

SIGNING = "CORTEXFLOW_SIGNING_KEY_FILE"
VERIFY = "CORTEXFLOW_VERIFY_KEY_FILE"
AUDIT = "CORTEXFLOW_AUDIT_KEY_FILE"

MIN_SECRET = 32  # bytes, the length of an HMAC-SHA-256 (RFC 2104 §3)


@dataclasses.dataclass(frozen=True)
class Keys:
    """Where the keys lie; None: there is none.

    Attributes:
        signing: signs manifests, and checks them where `verify` is None.
        verify: checks manifests' signatures.
        audit: keys the hashes of the audit log.
    """

    signing: Path | None = None
    verify: Path | None = None
    audit: Path | None = None

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] | None = None) -> "Keys":
        """The key files that the environment names; an empty name is none."""
        given = os.environ if environment is None else environment

        def named(variable: str) -> Path | None:
            return Path(given[variable]).expanduser() if given.get(variable) else None

        return cls(signing=named(SIGNING), verify=named(VERIFY), audit=named(AUDIT))


def read(path: Path) -> bytes:
    """Reads a key file; white space around the key is no part of it.

    Raises:
        RegistryError: it cannot be read.
    """
    try:
        return path.read_bytes().strip()
    except OSError as error:
        raise RegistryError(
            f"The key file {path} cannot be read ({error.strerror}). Name one that this account "
            "may read."
        ) from error


def secret(path: Path) -> bytes:
    """Reads a shared secret.

    Raises:
        RegistryError: it cannot be read, is too short, or is a PEM key instead.
    """
    content = read(path)
    if content.startswith(b"-----BEGIN"):
        raise RegistryError(f"{path} holds a PEM key where a shared secret is needed.")
    if len(content) < MIN_SECRET:
        raise RegistryError(
            f"The secret in {path} has {len(content)} bytes; at least {MIN_SECRET} are needed. "
            "Make one: openssl rand -hex 32."
        )
    return content
