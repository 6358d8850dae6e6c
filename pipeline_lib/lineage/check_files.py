"""Checks of bytes: the disk and DVC's cache against dvc.lock."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from pathlib import Path

from pydantic import BaseModel, TypeAdapter, ValidationError

from pipeline_lib.artifacts.dvc_cache import cached
from pipeline_lib.artifacts.files import digest_of_listing
from pipeline_lib.lineage.findings import Problem, Status, listed
from pipeline_lib.lineage.graph import CODE
from pipeline_lib.lineage.repository import PROVENANCE, Repository


class _Member(BaseModel):
    """A file of a folder, as DVC's cache lists it."""

    md5: str
    relpath: str


LISTING = TypeAdapter(list[_Member])


def outs_on_disk(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """Every file of every out is re-hashed and has the digest that dvc.lock records."""
    for stage in stages:
        for path, md5 in repository.runs[stage].outs.items():
            if not Path(path).exists():
                yield _missing(repository, path, stage)
            elif repository.hasher.path(Path(path)) != md5:
                yield Problem("FAIL", path, _difference(repository, Path(path), md5), (stage,))


def cache_on_disk(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """What DVC's cache holds of the outs has the digest that it is stored under."""
    for stage in stages:
        for path, md5 in repository.runs[stage].outs.items():
            whole = cached(repository.cache, md5)
            if not whole.path.exists():
                continue
            objects = {path: whole}
            if md5.endswith(".dir") and repository.hasher.path(whole.path) == whole.md5:
                members = _listing(whole.path) or []
                objects = {f"{path}/{member.relpath}": cached(repository.cache, member.md5) for member in members}
            for name, file in objects.items():
                if file.path.exists() and repository.hasher.path(file.path) != file.md5:
                    yield Problem("FAIL", name, f"its copy in DVC's cache, {file.path}, has other bytes", (stage,))


def sources_and_code(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """Sources and code on the disk are those that dvc.lock says were read."""
    readers: dict[tuple[str, str], list[str]] = defaultdict(list)
    for stage in stages:
        for path, md5 in repository.runs[stage].deps.items():
            if not repository.graph.producers_below(path):
                readers[path, md5].append(stage)
    for (path, md5), names in readers.items():
        kind = repository.graph.kind(names[0], path)
        if not Path(path).exists():
            yield _missing(repository, path, *names)
        elif repository.hasher.path(Path(path)) != md5:
            frozen = any(name in repository.declared and repository.declared[name].frozen for name in names)
            status: Status = "WARN" if kind == CODE and not frozen else "FAIL"
            evidence = f"{kind}: not what {listed(names)} read; `dvc repro` reruns that"
            yield Problem(status, path, evidence, tuple(names))


def links(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """Each stage read what dvc.lock says that the stage before it wrote."""
    digests: dict[str, str] = {}
    for run in repository.runs.values():
        digests.update(run.outs)
    for stage in stages:
        for path, md5 in repository.runs[stage].deps.items():
            if digests.get(path, md5) != md5:
                producer = repository.graph.producer(path)
                yield Problem("FAIL", path, f"{stage} read other bytes than {producer} wrote", (stage,))
            outs_below = repository.graph.outs_below(path)
            complete = outs_below and all(Path(out).exists() for out in outs_below)  # if not, the check of outs says so
            if complete and repository.hasher.path(Path(path)) != md5:
                yield Problem("FAIL", path, f"{stage} read other files than are there now", (stage,))


def _missing(repository: Repository, path: str, *stages: str) -> Problem:
    if repository.allow_missing and not path.startswith(PROVENANCE):
        return Problem("WARN", path, "not here, so not checked", stages)
    return Problem("FAIL", path, "not here; `dvc checkout` or `dvc pull` brings it, --allow-missing goes on", stages)


def _listing(path: Path) -> list[_Member] | None:
    """What an object of the cache lists; none if it is no listing."""
    try:
        return LISTING.validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None


def _difference(repository: Repository, path: Path, md5: str) -> str:
    """Which files differ from an out as dvc.lock has it, if its listing is in the cache."""
    found = repository.hasher.path(path)
    members = _listing(cached(repository.cache, md5).path) if path.is_dir() else None
    if members is None or found.startswith("unreadable"):
        return f"digest {found}, dvc.lock has {md5}; `dvc checkout` restores it"
    if digest_of_listing([member.model_dump() for member in members]) != md5:
        return f"digest {found}, dvc.lock has {md5}, whose listing in the cache is altered"
    was, now = {member.relpath: member.md5 for member in members}, repository.hasher.listing(path)
    changed = sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))
    return f"other bytes than dvc.lock records: {listed(changed)}; `dvc checkout` restores them"
