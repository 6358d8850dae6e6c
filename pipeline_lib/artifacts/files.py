"""Files that are whole or absent, and their digests."""

import hashlib
import json
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from pipeline_lib.errors import InputError


@contextmanager
def atomic(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`; synced and renamed on success, removed on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=path.suffix)
    os.close(handle)
    temporary = Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        sync(temporary)
        temporary.replace(path)
        sync(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


@contextmanager
def atomic_directory(path: Path) -> Iterator[Path]:
    """Yield a temporary directory beside `path` that replaces it on success and is removed on failure."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}."))
    try:
        yield temporary
        temporary.chmod(0o755)
        install(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def install(source: Path, destination: Path) -> None:
    """Move a finished directory to its final name, in place of the directory that stands there.

    Raises:
        InputError: what stands there is a link or a file, which is left as it is.
    """
    if destination.is_symlink() or (destination.exists() and not destination.is_dir()):
        kind = "a link" if destination.is_symlink() else "a file"
        raise InputError(f"{destination}: expected a folder or nothing, found {kind}; move it elsewhere and run again")
    destination.parent.mkdir(parents=True, exist_ok=True)
    arriving = destination.with_name(f".{destination.name}.arriving")
    shutil.rmtree(arriving, ignore_errors=True)
    try:
        shutil.move(source, arriving)  # copies from another file system, where the disk may be full
        if destination.exists():
            shutil.rmtree(destination)
        arriving.rename(destination)
    except OSError:
        shutil.rmtree(arriving, ignore_errors=True)
        raise
    sync(destination.parent)


def sync(path: Path) -> None:
    """Flush a file or directory to the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def md5(path: Path) -> str:
    """Hex digest of a file's bytes, the one that DVC uses."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "md5").hexdigest()


def check_name(path: Path) -> None:
    """Stop at a file or folder whose name no table could hold.

    Raises:
        InputError: the name is not UTF-8, or has a control character.
    """
    try:
        path.name.encode()
    except UnicodeEncodeError:
        raise InputError(f"{path.parent}: the name {os.fsencode(path.name)!r} is not UTF-8; rename it") from None
    if any(ord(letter) < 32 for letter in path.name):
        raise InputError(f"{path.parent}: the name {path.name!r} has a control character; rename it")


def dvc_listing(path: Path, digest: Callable[[Path], str] = md5) -> list[dict[str, str]]:
    """What DVC keeps of a folder: digest and name of each file, by name, but for what .dvcignore leaves out.

    Raises:
        InputError: a name is not UTF-8.
    """
    files = [file for file in path.rglob("*") if file.is_file() and file.suffix != ".pyc" and file.name != ".gitignore"]
    for file in files:
        check_name(file)
    by_name = sorted((file.relative_to(path).as_posix(), file) for file in files)
    return [{"md5": digest(file), "relpath": name} for name, file in by_name]


def dvc_digest(path: Path) -> str:
    """The digest that dvc.lock has of a file or folder.

    Raises:
        InputError: it is neither.
    """
    if not (path.is_file() or path.is_dir()):
        raise InputError(
            f"{path}: expected a file or a folder, found {'another thing' if path.exists() else 'nothing'}"
        )
    return digest_of_listing(dvc_listing(path)) if path.is_dir() else md5(path)


def digest_of_listing(listing: list[dict[str, str]]) -> str:
    """The digest that dvc.lock has of a folder of these files."""
    return hashlib.md5(json.dumps(listing, sort_keys=True).encode()).hexdigest() + ".dir"
