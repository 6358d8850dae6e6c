"""Compiled code, kept under the digest of all that determines it, shared by all processes of a user."""

import hashlib
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

KERNEL_CODE = Path(__file__).parent / "csrc"
PATIENCE = 300.0  # seconds to wait for another process that builds the same


class BuildError(Exception):
    """Why there is no compiled code."""


def cache_directory() -> Path:
    """Where compiled operators are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mixup-class-prompts" / "operators"


def build_id(*facts: str) -> str:
    """Digest of the code in csrc/ and of what else determines the compiled code, shortened to 16 digits."""
    digest = hashlib.sha256()
    for file in sorted(KERNEL_CODE.iterdir()):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    digest.update("\0".join(facts).encode())
    return digest.hexdigest()[:16]


def built(name: str, compile_to: Callable[[Path], None]) -> Path:
    """The file `name` of the cache, compiled now if it is not there: whole or absent, by one process at a time.

    Raises:
        BuildError: it cannot be compiled or stored, or another process has been at it for PATIENCE seconds.
    """
    path = cache_directory() / name
    if path.exists():
        return path
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(path.with_suffix(".lock"), timeout=PATIENCE):
            if not path.exists():
                with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
                    compiled = Path(scratch) / name
                    compile_to(compiled)
                    compiled.replace(path)
    except Timeout:
        raise BuildError(f"another process has been compiling {path} for {PATIENCE:.0f} s") from None
    except OSError as error:
        raise BuildError(f"cannot store {path}: {error}") from None
    return path
