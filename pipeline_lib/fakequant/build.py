"""Compiled code, kept under the digest of all that determines it, for every process of the user."""

import hashlib
import os
import stat
import tempfile
from collections.abc import Callable
from pathlib import Path

from filelock import FileLock, Timeout

from pipeline_lib.errors import InputError

SOURCES = Path(__file__).parent / "csrc"
PATIENCE = 300.0  # seconds to wait for another process that builds the same
OTHERS_WRITE = 0o022  # bits of a mode: write permission of the group and of everybody

loaded: dict[str, str] = {}  # by device, such as cpu or cuda-sm_90: SHA-256 of the compiled code that this process took


class BuildError(Exception):
    """Why there is no compiled code."""


def cache_directory() -> Path:
    """Where compiled operators are kept."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "mixup-class-prompts" / "operators"


def build_id(*facts: str) -> str:
    """Digest of the sources and of what else determines the compiled code, shortened to 16 digits."""
    digest = hashlib.sha256()
    for source in sorted(SOURCES.iterdir()):
        digest.update(source.name.encode() + b"\0" + source.read_bytes() + b"\0")
    digest.update("\0".join(facts).encode())
    return digest.hexdigest()[:16]


def built(name: str, compile_to: Callable[[Path], None]) -> Path:
    """The file `name` of the cache, compiled now if it is not there: whole or absent, by one process at a time.

    The name is the device, then the build after a dash. Its digest is entered in `loaded`.

    Raises:
        BuildError: it cannot be compiled or stored, or another process has been at it for PATIENCE seconds.
        InputError: others can write the file or its folder, or own it.
    """
    path = cache_directory() / name
    try:
        for folder in (path.parent.parent, path.parent):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            _check_owner(folder)  # of the upper one too: who can write there can replace the lower one
        if not path.exists():
            with FileLock(path.with_suffix(".lock"), timeout=PATIENCE):
                if not path.exists():
                    with tempfile.TemporaryDirectory(dir=path.parent) as scratch:
                        made = Path(scratch) / name
                        compile_to(made)
                        made.chmod(0o600)
                        made.replace(path)
        _check_owner(path)
        loaded[name.rpartition("-")[0]] = hashlib.sha256(path.read_bytes()).hexdigest()
    except Timeout:
        raise BuildError(f"another process has been compiling {path} for {PATIENCE:.0f} s") from None
    except OSError as error:
        raise BuildError(f"cannot store {path}: {error}") from None
    return path


def _check_owner(path: Path) -> None:
    """Whoever can write what is loaded can have us run any code."""
    status = path.stat()
    if status.st_uid != os.geteuid() or status.st_mode & OTHERS_WRITE:
        raise InputError(
            f"{path}: compiled operators are taken from files and folders that only you can write; found owner "
            f"{status.st_uid}, mode {stat.S_IMODE(status.st_mode):o}; look who wrote there, then `rm -r {path}`"
        )
