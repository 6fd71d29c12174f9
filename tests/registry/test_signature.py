"""Signed manifests: with a shared secret, or with a pair of keys of which servers hold one half."""

import json

import pytest
from crashes import WHY, model, push
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519, rsa

from registry.interface import RegistryError, VerificationError
from registry.keys import Keys
from registry.local import LocalRegistry


def private_pem(key, path, password=None):
    path.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.BestAvailableEncryption(password)
            if password
            else serialization.NoEncryption(),
        )
    )
    return path


def public_pem(key, path):
    path.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return path


@pytest.fixture(params=["ed25519", "hmac"])
def pair(request, tmp_path):
    """Keys of those who push, and keys of those who only check."""
    if request.param == "hmac":
        secret = tmp_path / "secret"
        secret.write_text("s" * 32 + "\n")
        return Keys(signing=secret), Keys(verify=secret)
    key = ed25519.Ed25519PrivateKey.generate()
    private = private_pem(key, tmp_path / "private.pem")
    return Keys(signing=private), Keys(verify=public_pem(key, tmp_path / "public.pem"))


@pytest.fixture
def signed(pair, tmp_path):
    """Versions 1 and 2, signed; seen by someone who only checks."""
    pusher = LocalRegistry(tmp_path / "registry", "student", pair[0])
    for number in (1, 2):
        push(pusher, model(tmp_path / str(number), f"graph {number}"))
    return LocalRegistry(tmp_path / "registry", "student", pair[1])


def signature(registry, number):
    return registry.path(number).parent / "manifests" / f"{number}.sig"


def acts(registry):
    return (
        lambda: registry.verify(1),
        lambda: registry.promote(1, **WHY),
        lambda: registry.rollback(**WHY),
        lambda: registry.set_traffic(1, 5, **WHY),
    )


def test_signed_versions_pass(signed):
    assert signed.rollback(**WHY).number == 1
    assert signed.promote(2, **WHY).number == 2


def damage_unsigned(registry):
    signature(registry, 1).unlink()


def damage_swapped(registry):
    signature(registry, 1).write_bytes(signature(registry, 2).read_bytes())


def damage_garbled(registry):
    signature(registry, 1).write_bytes(b"{}")


def damage_other_algorithm(registry):
    fields = json.loads(signature(registry, 1).read_bytes())
    signature(registry, 1).write_text(json.dumps(fields | {"algorithm": "none"}))


def damage_whole_story(registry):
    """Rewrites manifest and history alike, as one can who has no key."""
    kept = registry.path(1).parent / "manifests" / "1.json"
    kept.write_text(kept.read_text().replace('"who": "tester"', '"who": "nobody"'))
    (registry.path(1).parent / "history.jsonl").write_text("")


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (damage_unsigned, "not signed, and a key is set"),
        (damage_swapped, "not signed by the key"),
        (damage_garbled, "damaged"),
        (damage_other_algorithm, "signed with 'none'"),
        (damage_whole_story, "was changed after it was signed"),
    ],
)
def test_what_is_not_signed_as_it_must_be_gets_no_traffic(signed, damage, said):
    damage(signed)
    for act in acts(signed)[: 1 if damage is damage_whole_story else None]:
        with pytest.raises(VerificationError, match=said):
            act()
    assert signed.traffic().live == 2
    assert signed.traffic().canary is None


def test_a_signature_by_another_key_is_refused(signed, tmp_path):
    other = ed25519.Ed25519PrivateKey.generate()
    for keys in (
        Keys(verify=public_pem(other, tmp_path / "other.pem")),
        Keys(verify=secret_file(tmp_path / "other", "o" * 32)),
    ):
        with pytest.raises(VerificationError, match=r"not signed by the key|signed with"):
            LocalRegistry(signed.root, "student", keys).verify(1)


def secret_file(path, content):
    path.write_text(content)
    return path


def test_who_only_checks_cannot_push(tmp_path):
    key = ed25519.Ed25519PrivateKey.generate()
    keys = Keys(verify=public_pem(key, tmp_path / "public.pem"))
    registry = LocalRegistry(tmp_path / "registry", "student", keys)
    with pytest.raises(RegistryError, match="CORTEXFLOW_SIGNING_KEY_FILE"):
        push(registry, model(tmp_path / "1", "1"))
    assert registry.versions() == ()
    assert registry.traffic().live is None


def test_a_push_whose_signature_nobody_would_take_is_refused(tmp_path):
    keys = Keys(
        signing=private_pem(ed25519.Ed25519PrivateKey.generate(), tmp_path / "a.pem"),
        verify=public_pem(ed25519.Ed25519PrivateKey.generate(), tmp_path / "b.pem"),
    )
    registry = LocalRegistry(tmp_path / "registry", "student", keys)
    with pytest.raises(VerificationError, match="not signed by the key"):
        push(registry, model(tmp_path / "1", "1"))
    assert registry.versions() == ()


def test_versions_of_before_there_was_a_key_are_signed_when_asked(pair, tmp_path):
    before = LocalRegistry(tmp_path / "registry", "student", Keys())
    push(before, model(tmp_path / "1", "1"))
    pusher, checker = (LocalRegistry(before.root, "student", keys) for keys in pair)
    with pytest.raises(VerificationError, match="not signed"):
        checker.verify(1)
    pusher.sign(1, dry_run=True, **WHY)
    assert not signature(before, 1).exists()
    pusher.sign(1, **WHY)
    assert checker.verify(1).number == 1
    assert (before.history()[-1].action, before.history()[-1].state) == ("sign", "done")
    assert before.audit().faults == ()
    (before.path(1) / "saved_model.pb").write_text("X")
    with pytest.raises(VerificationError, match="was changed"):
        pusher.sign(1, **WHY)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda path: path, "cannot be read"),
        (lambda path: secret_file(path, "short"), "has 5 bytes; at least 32"),
        (lambda path: secret_file(path, "-----BEGIN PRIVATE KEY-----\nx"), "no usable PEM key"),
        (
            lambda path: private_pem(
                rsa.generate_private_key(public_exponent=65537, key_size=2048), path
            ),
            "of another kind .*ed25519 is needed",
        ),
        (
            lambda path: private_pem(ed25519.Ed25519PrivateKey.generate(), path, b"password"),
            "no usable PEM key without password",
        ),
        (
            lambda path: public_pem(ed25519.Ed25519PrivateKey.generate(), path),
            "no usable PEM key",
        ),
    ],
    ids=["absent", "short", "broken", "rsa", "encrypted", "public"],
)
def test_keys_that_cannot_sign_are_named(tmp_path, make, said):
    keys = Keys(signing=make(tmp_path / "key"))
    registry = LocalRegistry(tmp_path / "registry", "student", keys)
    with pytest.raises(RegistryError, match=said):
        push(registry, model(tmp_path / "1", "1"))
    assert registry.versions() == ()


def test_the_environment_names_the_keys(tmp_path, monkeypatch):
    for variable in ("SIGNING", "VERIFY", "AUDIT"):
        monkeypatch.setenv(f"CORTEXFLOW_{variable}_KEY_FILE", str(tmp_path / variable))
    assert Keys.from_environment() == Keys(*(tmp_path / n for n in ("SIGNING", "VERIFY", "AUDIT")))
    monkeypatch.setenv("CORTEXFLOW_SIGNING_KEY_FILE", "")
    assert Keys.from_environment().signing is None
