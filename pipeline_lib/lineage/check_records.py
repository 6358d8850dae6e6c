"""Checks of what stages recorded of their runs, against dvc.lock and git."""

from collections import defaultdict
from collections.abc import Collection, Iterator
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path, PurePosixPath
from typing import Any

from pipeline_lib.artifacts.files import dvc_listing
from pipeline_lib.lineage.findings import Problem, Status, listed
from pipeline_lib.lineage.graph import CODE, is_code
from pipeline_lib.lineage.history import digest_of_room
from pipeline_lib.lineage.pipeline import DVC_LOCK
from pipeline_lib.lineage.records import HARMLESS, MADE, REAL_IMAGES, STATED, Record
from pipeline_lib.lineage.repository import PROVENANCE, Repository
from pipeline_lib.provenance.dvc_file import lookup

UNTRACKED_SECTIONS = ("task", "runtime")  # whose values stand among the dependencies, or determine no bytes
KINDS_OF_TASK = {
    "classes": "text",
    "generator": "generator weights",
    "classifiers": "classifier weights",
    "labelled": "labelled images",
    "real": "real images",
    "images": STATED,
}


def _records(repository: Repository, stages: Collection[str]) -> Iterator[tuple[str, Record]]:
    """The stages that have a record: the check of records reports the others."""
    for stage in stages:
        if stage in repository.records:
            yield stage, repository.records[stage]


def records(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """Every run left a record, which names its stage, its command and the digests of its outs as dvc.lock does."""
    for stage in stages:
        if stage in repository.without_record:
            yield Problem("FAIL", repository.record_path(stage), repository.without_record[stage], (stage,))
    for stage, record in _records(repository, stages):
        path, run = repository.record_path(stage), repository.runs[stage]
        for what, recorded, expected in (
            ("path", f"{PROVENANCE}{record.stage}/{record.name}.json", path),
            ("stage", record.dvc_stage, stage),
            ("command", record.cmd, run.command),
        ):
            if recorded != expected:
                evidence = f"{what} {recorded}, but {DVC_LOCK} has {expected}: of another run"
                yield Problem("FAIL", path, evidence, (stage,))
        for out, wrote, md5 in _differences(record.outs, repository.products(stage)):
            evidence = f"{DVC_LOCK} has {md5}, but {stage} recorded that it wrote {wrote}: committed by hand?"
            yield Problem("FAIL", out, evidence, (stage,))
        if record.foreign_code:
            evidence = f"modules from elsewhere than the project and its packages ran: {listed(record.foreign_code)}"
            yield Problem("FAIL", path, evidence, (stage,))


def inputs(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """What a stage recorded that it read is what dvc.lock says, the same paths and digests."""
    for stage, record in _records(repository, stages):
        read = {path: entry.digest for path, entry in record.inputs.items()}
        run = repository.runs[stage]
        lock = {path: md5 for path, md5 in run.deps.items() if repository.graph.kind(stage, path) != CODE}
        for path, recorded, md5 in _differences(read, lock):
            evidence = f"{stage} recorded that it read {recorded}, but {DVC_LOCK} has {md5}: committed by hand?"
            yield Problem("FAIL", path, evidence, (stage,))


def kinds(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """Every source is of one known kind, which the stage recorded; what was made, a run of dvc.lock wrote."""
    for stage, record in _records(repository, stages):
        for path, entry in record.inputs.items():
            if entry.kind == MADE and not repository.graph.producers_below(path):
                evidence = f"read by {stage} as made by a stage, but no run of {DVC_LOCK} wrote it"
                yield Problem("FAIL", path, evidence, (stage,))
            elif entry.kind not in (MADE, STATED, *HARMLESS, *REAL_IMAGES):
                yield Problem("FAIL", path, f"a source of unknown kind {entry.kind!r}, read by {stage}", (stage,))
        if "" in record.origins:
            evidence = f"{stage} read images whose origin it did not record"
            yield Problem("FAIL", repository.record_path(stage), evidence, (stage,))
    claims = _claims(repository)
    for (path, kind), readers in claims.items():
        for (other, other_kind), other_readers in claims.items():
            if kind != other_kind and _overlap(path, other):
                evidence = f"{kind}, but {other} is {other_kind}: one of them is called what it is not"
                yield Problem("FAIL", path, evidence, tuple({*readers, *other_readers}))
    yield from _same_bytes(repository, stages)
    yield from _stated_that_are_real(repository, stages)


def _same_bytes(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """Sources of several kinds that are copies of each other."""
    known: dict[str, dict[str, str]] = defaultdict(dict)  # a path of these bytes by kind, by digest
    for record in repository.records.values():
        for path, entry in record.inputs.items():
            known[entry.digest].setdefault(entry.kind, path)
    for stage, record in _records(repository, stages):
        for path, entry in record.inputs.items():
            for kind, other in known[entry.digest].items():
                if kind != entry.kind and path != other and MADE not in (kind, entry.kind):
                    evidence = f"{entry.kind} for {stage}, but it has the bytes of {other}, which is {kind}"
                    yield Problem("FAIL", path, evidence, (stage,))


def _stated_that_are_real(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """Pictures that somebody says were rendered, and that are files of the labelled or real images that lie here."""
    stated = {p: s for s, record in _records(repository, stages) for p, e in record.inputs.items() if e.kind == STATED}
    task = lookup(repository.params, "task") if stated else {}
    real = [Path(task[key]) for key in ("labelled", "real") if isinstance(task.get(key), str)] if task else []
    known = {file["md5"]: path / file["relpath"] for path in real if path.is_dir() for file in dvc_listing(path)}
    for name, stage in stated.items():
        for file in dvc_listing(Path(name)) if Path(name).is_dir() else []:
            if file["md5"] in known:
                path = f"{name}/{file['relpath']}"
                evidence = f"{STATED} for {stage}, but it has the bytes of {known[file['md5']]}"
                yield Problem("FAIL", path, evidence, (stage,))


def _claims(repository: Repository) -> dict[tuple[str, str], list[str]]:
    """Paths of sources with the kinds that records and `task`, then and now, give them; the stages that read them."""
    claims: dict[tuple[str, str], list[str]] = defaultdict(list)
    for stage, record in repository.records.items():
        for path, entry in record.inputs.items():
            if entry.kind != MADE:
                claims[path, entry.kind].append(stage)
    for values_then in [repository.params, *(record.params for record in repository.records.values())]:
        task = values_then.get("task")
        for name, kind in KINDS_OF_TASK.items():
            source = task.get(name) if isinstance(task, dict) else None
            if isinstance(source, str):
                claims.setdefault((source, kind), [])
    return claims


def _overlap(one: str, other: str) -> bool:
    """Whether two paths are one, or one of them lies in the other."""
    a, b = PurePosixPath(one), PurePosixPath(other)
    return a.is_relative_to(b) or b.is_relative_to(a)


def values(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """The parameters that a stage recorded are those of dvc.lock, and it read no others."""
    for stage, record in _records(repository, stages):
        lock = repository.runs[stage].params
        for key, value in record.params.items():
            tracked = {name: then for name, then in lock.items() if _overlap(_as_path(name), _as_path(key))}
            if not tracked and key not in UNTRACKED_SECTIONS:
                evidence = f"read by {stage}, but no parameter of it in {DVC_LOCK}"
                yield Problem("FAIL", f"params.yaml: {key}", evidence, (stage,))
            for name, then in tracked.items():
                inner, outer, where = (then, value, name) if len(name) >= len(key) else (value, then, key)
                shared = where[min(len(name), len(key)) :].lstrip(".")
                if _below(outer, shared) != inner:
                    evidence = f"{stage} recorded another value than {DVC_LOCK} has: committed by hand?"
                    yield Problem("FAIL", f"params.yaml: {where}", evidence, (stage,))


def _as_path(key: str) -> str:
    return key.replace(".", "/")


def _below(value: Any, key: str) -> Any:
    for part in filter(None, key.split(".")):
        value = value.get(part) if isinstance(value, dict) else None
    return value


def commits(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """The commits of the runs are in git, and the modules that ran are those of their commits."""
    found: dict[tuple[Status, str, str], list[str]] = defaultdict(list)
    for stage, record in _records(repository, stages):
        path = repository.record_path(stage)
        if record.git_commit is None:
            found["WARN", "ran outside of git, so no history vouches for the code", path].append(stage)
            continue
        there = repository.history.code(record.git_commit)
        if there is None:
            evidence = f"git has no commit {record.git_commit}; `git fetch --unshallow` brings it if the clone lacks it"
            found["FAIL", evidence, path].append(stage)
            continue
        for module, md5 in record.code.items():
            if there.get(module) != md5:
                status: Status = "FAIL" if record.git_clean else "WARN"
                evidence = f"ran with other bytes than commit {record.git_commit[:10]} has"
                found[status, evidence, module].append(stage)
    for (status, evidence, artifact), names in found.items():
        yield Problem(status, artifact, f"{evidence} ({listed(names)})", tuple(names))


def modules(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """The modules that ran are dependencies in dvc.lock, with the digests that it has."""
    found: dict[tuple[Status, str, str], list[str]] = defaultdict(list)
    rooms: dict[tuple[str | None, str, str], dict[str, str] | None] = {}  # by commit, folder, digest
    for stage, record in _records(repository, stages):
        code = {path: md5 for path, md5 in repository.runs[stage].deps.items() if is_code(path)}
        for module, md5 in record.code.items():
            dependency = next((path for path in (module, *map(str, PurePosixPath(module).parents)) if path in code), "")
            key = record.git_commit, dependency, code.get(dependency, "")
            if dependency and dependency != module and key not in rooms:
                rooms[key] = _room(repository, *key)
            if not dependency:
                fault = _fault_of_undeclared(repository, record, module)
                if fault:
                    found[(*fault, module)].append(stage)
            elif dependency == module:
                if code[module] != md5:
                    found["FAIL", f"ran with other bytes than {DVC_LOCK} has", module].append(stage)
            elif (room := rooms[key]) is None:
                status: Status = "FAIL" if record.git_clean else "WARN"
                evidence = f"neither the disk nor the commit of the run has what {DVC_LOCK} has, so not compared"
                found[status, evidence, dependency].append(stage)
            elif room.get(module.removeprefix(f"{dependency}/")) != md5:
                found["FAIL", f"ran with other bytes than {DVC_LOCK} has", module].append(stage)
    for (status, evidence, artifact), names in found.items():
        yield Problem(status, artifact, f"{evidence} ({listed(set(names))})", tuple(names))


def _room(repository: Repository, commit: str | None, folder: str, md5: str) -> dict[str, str] | None:
    """Digest by name of the files of a folder of code that has this digest, at the commit or on the disk."""
    of_commit = repository.history.room(commit, folder) if commit else {}
    if digest_of_room(of_commit) == md5:
        return of_commit
    on_disk = Path(folder).is_dir() and repository.hasher.path(Path(folder)) == md5
    return repository.hasher.listing(Path(folder)) if on_disk else None


def _fault_of_undeclared(repository: Repository, record: Record, module: str) -> tuple[Status, str] | None:
    """What is wrong with a module that ran and that no dependency holds: packages' `__init__.py` alone may be so."""
    if not module.endswith("/__init__.py"):
        return "FAIL", f"ran, but is no dependency in {DVC_LOCK}"
    on_disk = repository.hasher.path(Path(module))
    if on_disk == record.code[module]:
        return None
    if record.git_commit and (repository.history.code(record.git_commit) or {}).get(module) == record.code[module]:
        return "WARN", "not what ran, and as no dependency holds it, `dvc repro` does not rerun it"
    return "FAIL", "ran as neither the disk nor the commit of the run has it"


def environment(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """The packages installed are those of the runs."""
    readers: dict[tuple[str, str, str], list[str]] = defaultdict(list)  # by package, version then, version now
    for stage, record in _records(repository, stages):
        for package, then in record.packages.items():
            try:
                now = version(package)
            except (PackageNotFoundError, ValueError):
                now = "absent"
            if now != then:
                readers[package, then, now].append(stage)
    for (package, then, now), names in readers.items():
        yield Problem("WARN", package, f"{then} when {listed(names)} ran, {now} now", tuple(names))


def devices(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """Each dataset was rendered on devices of one kind, and all stages loaded the same compiled operators."""
    operators: dict[str, dict[str, list[str]]] = defaultdict(lambda: defaultdict(list))
    for stage, record in _records(repository, stages):
        if len(record.devices) > 1:
            counts = ", ".join(f"{number} shards on {device}" for device, number in record.devices.items())
            yield Problem("WARN", stage, f"{counts}: last bits may differ between them", (stage,))
        for device, digest in record.operators.items():
            operators[device][digest].append(stage)
    for device, builds in operators.items():
        if len(builds) > 1:
            evidence = "; ".join(f"{digest[:10]} by {listed(names)}" for digest, names in builds.items())
            yield Problem("WARN", f"operators of {device}", f"several builds were loaded: {evidence}", ())


def _differences(recorded: dict[str, str], lock: dict[str, str]) -> Iterator[tuple[str, str | None, str | None]]:
    """Path, digest of the record and of dvc.lock, where these are not the same."""
    for path in dict.fromkeys([*recorded, *lock]):
        if recorded.get(path) != lock.get(path):
            yield path, recorded.get(path), lock.get(path)
