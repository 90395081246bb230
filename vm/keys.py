"""Keys of a machine, and the initramfs that hands them in.

Identity is injected, not baked: images hold no secret and stay byte-identical, and the host key is known before the
machine starts, so that the connection can be strict.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from vm import cpio

PRIVATE_KEY = "id_ed25519"
"""Name of the file with the private key that logs in."""


@dataclass(frozen=True, slots=True)
class KeyPair:
    """An Ed25519 key pair.

    :param private: OpenSSH's own form, not encrypted. :param public: ``ssh-ed25519 AAAA…``, without a comment.
    """

    private: bytes
    public: str

    def __repr__(self) -> str:
        return f"KeyPair({self.public})"


@dataclass(frozen=True, slots=True)
class Identity:
    """Who a machine is: ``host`` is what it shows, ``client`` is what may log in as root."""

    host: KeyPair
    client: KeyPair
    hostname: str


def make_key_pair() -> KeyPair:
    """Return a new key pair."""
    key = Ed25519PrivateKey.generate()
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
    return KeyPair(private, public.decode())


def make_identity(hostname: str) -> Identity:
    """Return a new identity with keys of its own."""
    return Identity(make_key_pair(), make_key_pair(), hostname)


def identity_initramfs(identity: Identity) -> bytes:
    """Return the archive that is appended to a bundle's initramfs; ``vm/guest/init.c`` takes it over."""
    return cpio.archive(
        [
            cpio.folder("identity", 0o700),
            cpio.regular("identity/ssh_host_ed25519_key", identity.host.private, 0o600),
            cpio.regular("identity/authorized_keys", f"{identity.client.public}\n".encode(), 0o600),
            cpio.regular("identity/hostname", f"{identity.hostname}\n".encode()),
        ]
    )


def write_secret(path: Path, data: bytes) -> None:
    """Write a file that only its owner may read, from its first moment on."""
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "wb") as file:  # noqa: PTH123 - a descriptor, not a path
        file.write(data)
