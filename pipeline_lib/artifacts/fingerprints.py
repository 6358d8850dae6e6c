"""One digest for everything that determines the bytes of a piece of work."""

import hashlib
import json
from pathlib import Path
from typing import Any

from pipeline_lib.artifacts.files import sha256


def fingerprint(identity: dict[str, Any]) -> str:
    """Hex SHA-256 of the canonical JSON of `identity`, shortened to 20 digits."""
    canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(canonical.encode()).hexdigest()[:20]


def digest_path(path: Path) -> str:
    """Hex SHA-256 of a file, or of the names and digests of all files below a directory."""
    if path.is_file():
        return sha256(path)
    files = sorted(p for p in path.rglob("*") if p.is_file())
    listing = "\n".join(f"{p.relative_to(path).as_posix()} {sha256(p)}" for p in files)
    return hashlib.sha256(listing.encode()).hexdigest()


def seed_of(namespace: str, base: int, name: str) -> int:
    """A 63-bit seed from an identity: the first bits of SHA-256 over (namespace, base seed, name)."""
    digest = hashlib.sha256(json.dumps([namespace, base, name]).encode()).digest()
    return int.from_bytes(digest[:8], "big") >> 1
