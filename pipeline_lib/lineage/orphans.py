"""What no run needs any more: work directories, and objects of DVC's cache that dvc.lock does not name."""

import json
import shutil
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.artifacts.dvc_cache import cached
from pipeline_lib.artifacts.workdir import at_work, work_root
from pipeline_lib.lineage.repository import Repository


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


def find_orphans(repository: Repository) -> list[Orphan]:
    """Work that no running stage holds, and cached objects that dvc.lock does not name.

    Unfinished work is listed too: what it has finished would be computed again. Cached objects are outs of earlier
    parameters or code, which DVC could no longer restore.
    """
    return [*_work_folders(), *_cached_objects(repository)]


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


def _cached_objects(repository: Repository) -> Iterator[Orphan]:
    needed: set[Path] = set()
    for run in repository.runs.values():
        for md5 in [*run.outs.values(), *run.deps.values()]:
            whole = cached(repository.cache, md5).path
            needed.add(whole)
            if md5.endswith(".dir") and whole.exists():
                members = json.loads(whole.read_bytes())
                needed |= {cached(repository.cache, member["md5"]).path for member in members}
    for path in sorted((repository.cache / "files" / "md5").glob("*/*")):
        if path not in needed:
            yield Orphan(path, path.stat().st_size, "cached, not named by dvc.lock: an earlier value's")
