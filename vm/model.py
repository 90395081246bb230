"""The lock's data: what a build uses and what it gives. Read by Python here and by the Vagrantfile (JSON)."""

from __future__ import annotations

import msgspec

LOCK_SCHEMA = 1
"""Version of the lock's shape; a lock of another version is refused."""


class Package(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True, omit_defaults=True):
    """One binary package as an archive's signed index described it.

    :param archive: ``debian`` or ``debian-security``: which tree of the mirror ``path`` is relative to.
    :param path: path inside that archive, ``pool/…``; never a host.
    :param size: bytes.
    :param signed: whether ``sha256`` came from a signed index. An archive keeps files in its pool for a while after its
        index stopped listing them; the hash of such a file is the one it had when it was locked first, and is marked.
    """

    name: str
    version: str
    architecture: str
    archive: str
    path: str
    size: int
    sha256: str
    signed: bool = True


class ArtefactHash(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a build of one artefact must give.

    :param sha256: hash over the artefact's files (name and hash of each, sorted).
    :param size: bytes of all files together.
    :param parts: hash per part (a file, or a folder of the tree inside), so that a build that differs can say where.
    """

    sha256: str
    size: int
    parts: dict[str, str]


class Suite(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """A suite whose signed index was used.

    :param date: the index's own date, ISO 8601 in UTC.
    :param signed_by: fingerprints of the keys whose signatures were verified.
    """

    archive: str
    date: str
    inrelease_sha256: str
    signed_by: list[str]


class Root(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Packages of a file tree (tools root or base image) and the artefact they give."""

    suite: str
    packages: list[Package]
    artefact: ArtefactHash | None = None


class Kernel(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """One pinned kernel.

    :param line: ``6.1``.
    :param release: what ``uname -r`` prints, ``6.1.0-56-cloud-amd64``.
    :param version: the package's version.
    :param support: ``default`` or ``selectable``.
    """

    line: str
    release: str
    version: str
    suite: str
    support: str
    packages: list[Package]
    artefact: ArtefactHash | None = None


class Lock(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """The whole lock.

    :param source_date_epoch: seconds since 1970 that every timestamp in an artefact is clamped to.
    :param boxes: what makes a box for Vagrant boot by itself.
    :param box_artefacts: hash of each box, by ``libvirt:6.1`` or ``virtualbox:6.1``.
    :param digest: SHA-256 over the canonical JSON of everything else; tells an edit by hand.
    """

    schema: int
    source_date_epoch: int
    suites: dict[str, Suite]
    tools: Root
    base: Root
    boxes: Root
    kernels: dict[str, Kernel]
    box_artefacts: dict[str, ArtefactHash] = {}
    digest: str = ""

    @property
    def newest_index(self) -> str:
        """Date of the newest package index, ISO 8601: the version of boxes begins with it."""
        return max((suite.date for suite in self.suites.values()), default="1970-01-01T00:00:00Z")
