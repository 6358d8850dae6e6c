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
    """A file or folder that may go."""

    path: Path
    bytes: int
    what: str

    def remove(self) -> None:
        """Delete it."""
        if self.path.is_dir():
            shutil.rmtree(self.path)
        else:
            self.path.chmod(0o644)
            self.path.unlink()


def orphans(repository: Repository) -> list[Orphan]:
    """Work that no running stage holds, and cached objects that dvc.lock does not name.

    Unfinished work is listed too: removing it costs the units that it has. Removing cached objects costs the way
    back to earlier values.
    """
    return [*_work(), *_cache(repository)]


def _work() -> Iterator[Orphan]:
    for identity in sorted(work_root().glob("*/*/identity.json")):
        folder = identity.parent
        if at_work(folder):
            continue
        units = [path for path in folder.rglob("*") if path.is_file()]
        what = "finished and published" if (folder / "published").exists() else f"unfinished work, {len(units)} files"
        yield Orphan(folder, sum(path.stat().st_size for path in units), what)


def _cache(repository: Repository) -> Iterator[Orphan]:
    needed: set[Path] = set()
    for run in repository.runs.values():
        for md5 in [*run.outs.values(), *run.deps.values()]:
            whole = cached(repository.cache, md5).path
            needed.add(whole)
            if md5.endswith(".dir") and whole.exists():
                needed |= {cached(repository.cache, m["md5"]).path for m in json.loads(whole.read_bytes())}
    for path in sorted((repository.cache / "files" / "md5").glob("*/*")):
        if path not in needed:
            yield Orphan(path, path.stat().st_size, "cached, not named by dvc.lock: an earlier value's")
