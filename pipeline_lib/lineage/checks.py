"""What can be wrong with a finished pipeline, one check a function."""

import csv
import json
import subprocess
from collections import defaultdict
from collections.abc import Callable, Collection, Iterator
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, Literal

import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from pipeline_lib.artifacts.dvc_cache import cached
from pipeline_lib.artifacts.files import digest_of_listing
from pipeline_lib.lineage.closure import closure, expand
from pipeline_lib.lineage.graph import CODE
from pipeline_lib.lineage.pipeline import DVC_LOCK, lookup
from pipeline_lib.lineage.repository import CALIBRATIONS, CHECKPOINTS, DATASETS, Repository

Status = Literal["OK", "WARN", "FAIL"]
NAMED = 3  # files that a message lists


@dataclass(frozen=True)
class Problem:
    """Something that is wrong, or may be, with one artifact."""

    status: Status
    artifact: str
    evidence: str
    stages: tuple[str, ...]  # whose outs it puts in doubt


@dataclass(frozen=True)
class Check:
    """A check's name, what it looked at, and what it found."""

    name: str
    evidence: str
    problems: list[Problem]

    @property
    def status(self) -> Status:
        """The worst of its problems'."""
        found = {problem.status for problem in self.problems}
        return "FAIL" if "FAIL" in found else "WARN" if "WARN" in found else "OK"


Found = Iterator[Problem]


def run_checks(repository: Repository, stages: Collection[str]) -> list[Check]:
    """All checks, of these stages."""
    return [
        Check(name, " ".join(str(check.__doc__).split()).rstrip("."), list(check(repository, stages)))
        for name, check in CHECKS.items()
    ]


def outs_on_disk(repository: Repository, stages: Collection[str]) -> Found:
    """Every file of every out is re-hashed and has the digest that dvc.lock records."""
    for stage in stages:
        for path, md5 in repository.runs[stage].outs.items():
            if not Path(path).exists():
                yield _missing(repository, path, stage)
            elif repository.hasher.path(Path(path)) != md5:
                yield Problem("FAIL", path, _difference(repository, Path(path), md5), (stage,))


def cache_on_disk(repository: Repository, stages: Collection[str]) -> Found:
    """What DVC's cache holds of the outs has the digest that it is stored under."""
    for stage in stages:
        for path, md5 in repository.runs[stage].outs.items():
            whole = cached(repository.cache, md5)
            if not whole.path.exists():
                continue
            objects = {path: whole}
            if md5.endswith(".dir") and repository.hasher.file(whole.path) == whole.md5:
                members = json.loads(whole.path.read_bytes())
                objects = {f"{path}/{m['relpath']}": cached(repository.cache, m["md5"]) for m in members}
            for name, file in objects.items():
                if file.path.exists() and repository.hasher.file(file.path) != file.md5:
                    yield Problem("FAIL", name, f"its copy in DVC's cache, {file.path}, has other bytes", (stage,))


def sources_and_code(repository: Repository, stages: Collection[str]) -> Found:
    """Sources and code on the disk are those that dvc.lock says were read."""
    for (path, md5), readers in _leaves(repository, stages).items():
        kind = repository.graph.kind(path)
        if not Path(path).exists():
            yield _missing(repository, path, *readers)
        elif repository.hasher.path(Path(path)) != md5:
            frozen = any(repository.declared[r].frozen for r in readers if r in repository.declared)
            status: Status = "WARN" if kind == CODE and not frozen else "FAIL"
            yield Problem(status, path, f"{kind}: not what {_some(readers)} read; `dvc repro` reruns that", readers)
        elif kind == "unknown":
            yield Problem("WARN", path, f"a source of unknown kind, read by {_some(readers)}", readers)


def links(repository: Repository, stages: Collection[str]) -> Found:
    """Each stage read what dvc.lock says that the stage before it wrote."""
    wrote = {path: (md5, name) for name, run in repository.runs.items() for path, md5 in run.outs.items()}
    for stage in stages:
        for path, md5 in repository.runs[stage].deps.items():
            if path in wrote and wrote[path][0] != md5:
                yield Problem("FAIL", path, f"{stage} read other bytes than {wrote[path][1]} wrote", (stage,))
            parts = [out for out in wrote if out.startswith(path + "/")]
            complete = bool(parts) and all(Path(out).exists() for out in parts)  # else the check of outs says so
            if complete and repository.hasher.path(Path(path)) != md5:
                yield Problem("FAIL", path, f"{stage} read other files than are there now", (stage,))


def provenance(repository: Repository, stages: Collection[str]) -> Found:
    """Every run recorded itself, and the digests that it recorded are those of dvc.lock."""
    for stage in stages:
        path = next((out for out in repository.runs[stage].outs if "provenance" in out), stage)
        recorded = repository.provenance(stage)
        if recorded is None:
            if not (repository.allow_missing and not Path(path).exists()):
                yield Problem("FAIL", path, "absent or unreadable; `dvc checkout` restores it", (stage,))
            continue
        for out, md5 in repository.products(stage).items():
            own = recorded.get("outs", {}).get(out)
            if own != md5:
                evidence = f"dvc.lock has {md5}, but {stage} recorded that it wrote {own}: committed by hand?"
                yield Problem("FAIL", out, evidence, (stage,))


def parameters(repository: Repository, stages: Collection[str]) -> Found:
    """The values of params.yaml are those that dvc.lock says were used."""
    for stage in stages:
        declared = repository.declared.get(stage)
        if declared is None:
            yield Problem("WARN", stage, "stands in dvc.lock, but dvc.yaml declares it no more", (stage,))
            continue
        for key in declared.params:
            now, then = lookup(repository.params, key), repository.runs[stage].params.get(key)
            if now != then:
                status: Status = "FAIL" if declared.frozen else "WARN"
                rerun = "frozen, so `dvc repro` does not see it" if declared.frozen else "`dvc repro` reruns it"
                evidence = f"{_first_difference(key, then, now)} for {stage}; {rerun}"
                yield Problem(status, f"params.yaml: {key}", evidence, (stage,))


def unfinished(repository: Repository, stages: Collection[str]) -> Found:  # noqa: ARG001 a check's arguments
    """Every stage that dvc.yaml declares has finished."""
    for name in repository.declared.keys() - repository.runs.keys():
        yield Problem("WARN", name, "declared in dvc.yaml, but dvc.lock has no run of it; `dvc repro` runs it", ())


def frozen(repository: Repository, stages: Collection[str]) -> Found:
    """No stage is frozen."""
    for stage in stages:
        if stage in repository.declared and repository.declared[stage].frozen:
            yield Problem("WARN", stage, "frozen: `dvc repro` calls it up to date whatever changes", (stage,))


def committed(repository: Repository, stages: Collection[str]) -> Found:  # noqa: ARG001 a check's arguments
    """dvc.lock is the one of git's HEAD."""
    shown = subprocess.run(["git", "show", f"HEAD:./{DVC_LOCK}"], capture_output=True, check=False)
    if shown.returncode:
        yield Problem("WARN", str(DVC_LOCK), "git's HEAD has none, so no history vouches for it", ())
    elif shown.stdout != DVC_LOCK.read_bytes():
        yield Problem("WARN", str(DVC_LOCK), "differs from git's HEAD; `git diff dvc.lock` shows how", ())


def declared_imports(repository: Repository, stages: Collection[str]) -> Found:
    """Every stage declares exactly the modules that it imports."""
    scripts = {repository.declared[s].script: s for s in stages if s in repository.declared}
    root = Path()
    for script, stage in scripts.items():
        if not (root / script).exists():
            continue
        code = [d for d in repository.declared[stage].deps if repository.graph.kind(d) == CODE]
        declared = {file for dep in code for file in expand(dep, root)}
        for file in sorted(closure(root / script, root) - declared):
            readers = tuple(s for s in stages if s in repository.declared and repository.declared[s].script == script)
            yield Problem("FAIL", file.as_posix(), f"imported by {script}, but no dependency of {stage}", readers)


def environment(repository: Repository, stages: Collection[str]) -> Found:
    """The packages installed are those of the runs."""
    drift: dict[tuple[str, str, str], list[str]] = defaultdict(list)
    for stage in stages:
        for package, then in (repository.provenance(stage) or {}).get("packages", {}).items():
            try:
                now = version(package)
            except PackageNotFoundError:
                now = "absent"
            if now != then:
                drift[package, then, now].append(stage)
    for (package, then, now), readers in drift.items():
        yield Problem("WARN", package, f"{then} when {_some(readers)} ran, {now} now", tuple(readers))


def devices(repository: Repository, stages: Collection[str]) -> Found:
    """Each dataset was rendered on devices of one kind."""
    for stage in stages:
        found = (repository.provenance(stage) or {}).get("devices", {})
        if len(found) > 1:
            counts = ", ".join(f"{number} shards on {device}" for device, number in found.items())
            yield Problem("WARN", stage, f"{counts}: last bits may differ between them", (stage,))


def datasets(repository: Repository, stages: Collection[str]) -> Found:
    """Each dataset's index names its shards, and as many images as were rendered."""
    for stage in stages:
        for path in repository.products(stage):
            if not path.startswith(DATASETS + "/") or not Path(path).exists():
                continue
            rows, indexed = 0, set()
            try:
                for _, shard in samples(Path(path)):
                    rows += 1
                    indexed.add(shard)
            except (OSError, ValueError, KeyError) as error:
                yield Problem("FAIL", f"{path}/index.jsonl", f"unreadable: {error}", (stage,))
                continue
            there = {file.name for file in Path(path).glob("*.tar")}
            if indexed != there:
                evidence = f"shards of the index that are not there, or the other way: {_some(indexed ^ there)}"
                yield Problem("FAIL", path, evidence, (stage,))
            images = (repository.provenance(stage) or {}).get("images", rows)
            if images != rows:
                yield Problem("FAIL", f"{path}/index.jsonl", f"{rows} images, but {images} were made", (stage,))


def calibration_samples(repository: Repository, stages: Collection[str]) -> Found:
    """Every image of a calibration set that stems from a dataset stands in that dataset's index."""
    for stage in stages:
        read = [dep for dep in repository.runs[stage].deps if dep.startswith(DATASETS + "/")]
        for path in (p for p in repository.products(stage) if p.startswith(CALIBRATIONS + "/")):
            table = Path(path) / "samples.csv"
            if not read or not table.exists() or not Path(read[0]).exists():
                continue
            with table.open(encoding="utf-8", newline="") as file:
                strangers = {key for row in csv.DictReader(file) for key in row["key"].split("+")}  # A+B: mixed
            with suppress(OSError, ValueError, KeyError):  # of which the check of datasets speaks
                strangers.difference_update(key for key, _ in samples(Path(read[0])))
            if strangers:
                evidence = f"{len(strangers)} samples are not in {read[0]}/index.jsonl: {_some(strangers)}"
                yield Problem("FAIL", str(table), evidence, (stage,))


def checkpoints(repository: Repository, stages: Collection[str]) -> Found:
    """The integers of every weight fill their packed bytes; steps are positive, zero points levels of the grid."""
    for stage in stages:
        for path in (p for p in repository.products(stage) if p.startswith(CHECKPOINTS + "/")):
            for file in sorted(Path(path).glob("*.safetensors")):
                try:
                    described = json.loads((Path(path) / "quantization.json").read_text(encoding="utf-8"))
                    wrong = list(_wrong_weights(described["weights"], load_file(file)))
                except (OSError, ValueError, KeyError, SafetensorError) as error:
                    wrong = [f"unreadable: {error}"]
                for evidence in wrong:
                    yield Problem("FAIL", str(file), evidence, (stage,))


CHECKS: dict[str, Callable[[Repository, Collection[str]], Found]] = {
    "outs": outs_on_disk,
    "cache": cache_on_disk,
    "sources and code": sources_and_code,
    "links": links,
    "provenance": provenance,
    "parameters": parameters,
    "finished": unfinished,
    "frozen": frozen,
    "committed": committed,
    "imports": declared_imports,
    "environment": environment,
    "devices": devices,
    "datasets": datasets,
    "calibration sets": calibration_samples,
    "checkpoints": checkpoints,
}


def _missing(repository: Repository, path: str, *stages: str) -> Problem:
    if repository.allow_missing:
        return Problem("WARN", path, "not here, so not checked", stages)
    return Problem("FAIL", path, "not here; `dvc checkout` or `dvc pull` brings it, --allow-missing goes on", stages)


def _difference(repository: Repository, path: Path, md5: str) -> str:
    """Which files differ from an out as dvc.lock has it, if its listing is in the cache."""
    listing = cached(repository.cache, md5).path
    if not path.is_dir() or not listing.exists():
        return f"digest {repository.hasher.path(path)}, dvc.lock has {md5}; `dvc checkout` restores it"
    entries = json.loads(listing.read_bytes())
    if digest_of_listing(entries) != md5:
        return f"digest {repository.hasher.path(path)}, dvc.lock has {md5}, whose listing in the cache is altered"
    was, now = {entry["relpath"]: entry["md5"] for entry in entries}, repository.hasher.listing(path)
    changed = sorted(name for name in was.keys() | now.keys() if was.get(name) != now.get(name))
    return f"other bytes than dvc.lock records: {_some(changed)}; `dvc checkout` restores them"


def _leaves(repository: Repository, stages: Collection[str]) -> dict[tuple[str, str], tuple[str, ...]]:
    """Readers by path and digest of what no stage writes."""
    readers: dict[tuple[str, str], list[str]] = defaultdict(list)
    for stage in stages:
        for path, md5 in repository.runs[stage].deps.items():
            if not repository.graph.producers_below(path):
                readers[path, md5].append(stage)
    return {leaf: tuple(names) for leaf, names in readers.items()}


def _some(names: Collection[str]) -> str:
    shown = ", ".join(sorted(names)[:NAMED])
    return shown + (f" and {len(names) - NAMED} more" if len(names) > NAMED else "")


def _first_difference(key: str, then: Any, now: Any) -> str:
    if isinstance(then, dict) and isinstance(now, dict):
        for name in then.keys() | now.keys():
            if then.get(name) != now.get(name):
                return _first_difference(f"{key}.{name}", then.get(name), now.get(name))
    return f"`{key}` was {then!r}, is {now!r}"


def samples(dataset: Path) -> Iterator[tuple[str, str]]:
    """Key and shard of every sample of a dataset."""
    with (dataset / "index.jsonl").open(encoding="utf-8") as file:
        for row in map(json.loads, file):
            yield row["key"], row["shard"]


def _wrong_weights(described: dict[str, Any], tensors: dict[str, Any]) -> Iterator[str]:
    for name, layer in described.items():
        bits, count = layer["bits"], int(np.prod(layer["shape"]))
        packed, step, zero = (tensors[f"{name}.{part}"] for part in ("integers", "step", "zero_point"))
        if packed.size != -(-count * bits // 8):
            yield f"{name}: {packed.size} bytes, but {count} integers of {bits} bits need {-(-count * bits // 8)}"
        if not (np.isfinite(step) & (step > 0)).all():
            yield f"{name}: a step is not a positive number"
        if not ((zero == zero.round()) & (zero >= 0) & (zero < 2**bits)).all():
            yield f"{name}: a zero point is no level of {bits} bits"
