"""The runtime's own key: what it signs its audit log with, and what its DID document shows."""

from __future__ import annotations

import os
from collections.abc import Callable
from hashlib import sha256
from pathlib import Path

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_pem_private_key,
    load_pem_public_key,
)

from ..errors import PluginError
from ..settings import Settings


class Identity:
    def __init__(self, key: Ed25519PrivateKey) -> None:
        self._key = key
        self.public_key = key.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)
        self.public_pem = key.public_key().public_bytes(Encoding.PEM, PublicFormat.SubjectPublicKeyInfo).decode()

    @property
    def fingerprint(self) -> str:
        """Tells keys apart, for people."""
        return sha256(self.public_key).hexdigest()[:16]

    def secret(self, purpose: str) -> bytes:
        """32 bytes that only this runtime knows, another for each purpose."""
        private = self._key.private_bytes(Encoding.Raw, PrivateFormat.Raw, NoEncryption())
        return HKDF(SHA256(), 32, salt=None, info=purpose.encode()).derive(private)

    def sign(self, message: bytes) -> bytes:
        """Ed25519 (RFC 8032)."""
        return self._key.sign(message)


def checker(public_pem: str) -> Callable[[bytes, bytes], bool]:
    """Whether a signature, the first argument, is one of the keys' over a message. The PEM may hold several keys, one
    after the other. Raises `ValueError` where it holds none."""
    keys = [_public(f"{pem}{_END}") for pem in public_pem.split(_END)[:-1]]
    if not keys:
        raise ValueError("it holds no public key in PEM")
    return lambda signature, message: any(_is_signed(key, signature, message) for key in keys)


_END = "-----END PUBLIC KEY-----"


def _public(pem: str) -> Ed25519PublicKey:
    key = load_pem_public_key(pem.strip().encode())
    if not isinstance(key, Ed25519PublicKey):
        raise ValueError("it holds a key of another kind; it must be Ed25519")
    return key


def _is_signed(key: Ed25519PublicKey, signature: bytes, message: bytes) -> bool:
    try:
        key.verify(signature, message)
    except InvalidSignature:
        return False
    return True


def load_identity(settings: Settings) -> Identity:
    """From the settings, else from the home folder, where the first start makes it. Raises `PluginError`."""
    if settings.signing_key is not None:
        return Identity(_parse(settings.signing_key.replace("\\n", "\n").encode(), "JAMJET_SIGNING_KEY"))
    file = settings.home_folder / "signing.key"
    try:
        if not file.exists():
            pem = Ed25519PrivateKey.generate().private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
            keep_secret(file, pem)
        return Identity(_parse(file.read_bytes(), str(file)))
    except OSError as error:
        raise PluginError(f"cannot keep the signing key in {file}: {error.strerror}; set JAMJET_HOME") from error


def keep_secret(file: Path, content: bytes) -> None:
    """Writes a new file that only its owner can read, and makes it last. What is there already is left as it is."""
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as opened:
        opened.write(content)
        opened.flush()
        os.fsync(opened.fileno())
    try:
        os.link(draft, file)
    except FileExistsError:  # another process was faster
        pass
    finally:
        draft.unlink()


def _parse(pem: bytes, place: str) -> Ed25519PrivateKey:
    try:
        key = load_pem_private_key(pem, None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise PluginError(f"{place} holds no private key in PEM: {error}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise PluginError(f"{place} holds a key of another kind; it must be Ed25519")
    return key
