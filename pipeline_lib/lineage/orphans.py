"""What nothing needs any more: work directories, and objects of DVC's cache that no commit in use names."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.artifacts.workdir import at_work, work_root
from pipeline_lib.errors import InputError
from pipeline_lib.lineage.history import git, objects

DIGEST = re.compile(rb"\b[0-9a-f]{32}(?:\.dir)?\b")
NAMING = ("dvc.lock", ".dvc")  # ends of the names of files that name cached objects


@dataclass(frozen=True)
class Orphan:
    """A file or folder that may be removed."""

    path: Path
    bytes: int
    description: str

    def remove(self) -> None:
        """Delete it."""
        if self.path.is_dir():
            shutil.rmtree(self.path)
        else:
            self.path.chmod(0o644)
            self.path.unlink()


def find_orphans(cache: Path) -> list[Orphan]:
    """Work that no running stage holds, and cached objects that no commit in use names.

    Unfinished work is listed too: what it has finished would be computed again. In use are the working tree, the index,
    the heads of all worktrees, and the tips of all refs: branches, tags, stashes, remote-tracking branches and the
    experiments of DVC. What only older commits name, DVC could no longer restore.

    Raises:
        InputError: others may use the cache, or git does not say what is in use.
    """
    _require_own(cache)
    return [*_work_folders(), *_cached_objects(cache)]


def _require_own(cache: Path) -> None:
    """Stop unless the cache is this project's alone."""
    own, shared = (
        Path(".dvc").resolve(),
        subprocess.run(
            [sys.executable, "-m", "dvc", "config", "cache.shared"], capture_output=True, text=True, check=False
        ),
    )
    if not cache.resolve().is_relative_to(own) or shared.stdout.strip():
        raise InputError(
            f"{cache}: expected a cache of this project alone, inside {own} and not `cache.shared`; "
            "`dvc gc --projects` cleans one that projects share"
        )


def _work_folders() -> Iterator[Orphan]:
    for identity in sorted(work_root().glob("*/*/identity.json")):
        folder = identity.parent
        if at_work(folder):
            continue
        files = [path for path in folder.rglob("*") if path.is_file()]
        if (folder / "published").exists():
            description = "finished and published"
        else:
            description = f"unfinished work, {len(files)} files"
        yield Orphan(folder, sum(path.stat().st_size for path in files), description)


def _cached_objects(cache: Path) -> Iterator[Orphan]:
    folder = cache / "files" / "md5"
    named = {digest.decode() for content in _naming_files() for digest in DIGEST.findall(content)}
    for name in sorted(name for name in named if name.endswith(".dir")):
        listing = folder / name[:2] / name[2:]
        if listing.exists():
            named |= {digest.decode() for digest in DIGEST.findall(listing.read_bytes())}
    for path in sorted(folder.glob("*/*")):
        if path.parent.name + path.name not in named:
            yield Orphan(path, path.stat().st_size, "cached, named by no branch, tag, stash, experiment or dvc.lock")


def _naming_files() -> Iterator[bytes]:
    """The contents of all files in use that name cached objects."""
    listed = _git("ls-files", "-z", "--cached", "--others", "--exclude-standard")
    here = [Path(name) for name in listed.split("\0") if name.endswith(NAMING)]
    yield from (path.read_bytes() for path in [*here, Path("dvc.lock")] if path.is_file())
    trees = [entry.split() for entry in _git("ls-files", "-z", "--stage").split("\0") if entry.endswith(NAMING)]
    names = {entry[1] for entry in trees}
    for commit in _commits_in_use():
        for entry in _git("ls-tree", "-r", "-z", "--full-tree", commit).split("\0"):
            if entry.endswith(NAMING):
                names.add(entry.split()[2])
    yield from objects(sorted(names))


def _commits_in_use() -> set[str]:
    refs = [line.split() for line in _git("for-each-ref", "--format=%(objectname) %(refname)").splitlines()]
    commits = {name for name, _ in refs}
    for _, ref in refs:
        if ref.endswith("stash"):  # a stack: the ref names its top, the reflog all; parents are index and new files
            commits.update(_git("log", "--walk-reflogs", "--format=%H %P", ref, "--").split())
    worktrees = _git("worktree", "list", "--porcelain").splitlines()
    commits.update(line.removeprefix("HEAD ") for line in worktrees if line.startswith("HEAD "))
    return {commit for commit in commits if commit.strip("0")}


def _git(*arguments: str) -> str:
    found = git(*arguments)
    if found is None:
        raise InputError(f"`git {' '.join(arguments)}` failed, so what is in use cannot be said; nothing is removed")
    return found.decode(errors="surrogateescape")
