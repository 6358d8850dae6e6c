"""What can be wrong with a finished pipeline, one check a function."""

import csv
import json
import math
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
from pipeline_lib.lineage.closure import undeclared
from pipeline_lib.lineage.graph import CODE
from pipeline_lib.lineage.pipeline import DVC_LOCK, lookup
from pipeline_lib.lineage.repository import CALIBRATIONS, CHECKPOINTS, DATASETS, Repository

Status = Literal["OK", "WARN", "FAIL"]
NAMES_LISTED = 3  # in a message


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
        """The worst of its problems' statuses; OK if it has none."""
        found = {problem.status for problem in self.problems}
        if "FAIL" in found:
            return "FAIL"
        return "WARN" if "WARN" in found else "OK"


def run_checks(repository: Repository, stages: Collection[str]) -> list[Check]:
    """All checks, of these stages. The docstring of each says what it looks at, in words that the audit prints."""
    checks = []
    for name, check in CHECKS.items():
        evidence = " ".join(str(check.__doc__).split()).rstrip(".")
        checks.append(Check(name, evidence, list(check(repository, stages))))
    return checks


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
            if md5.endswith(".dir") and repository.hasher.file(whole.path) == whole.md5:
                objects = {
                    f"{path}/{member['relpath']}": cached(repository.cache, member["md5"])
                    for member in json.loads(whole.path.read_bytes())
                }
            for name, file in objects.items():
                if file.path.exists() and repository.hasher.file(file.path) != file.md5:
                    yield Problem("FAIL", name, f"its copy in DVC's cache, {file.path}, has other bytes", (stage,))


def sources_and_code(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """Sources and code on the disk are those that dvc.lock says were read."""
    for (path, md5), readers in _readers_of_sources(repository, stages).items():
        kind = repository.graph.source_kind(path)
        if not Path(path).exists():
            yield _missing(repository, path, *readers)
        elif repository.hasher.path(Path(path)) != md5:
            frozen = any(name in repository.declared and repository.declared[name].frozen for name in readers)
            status: Status = "WARN" if kind == CODE and not frozen else "FAIL"
            yield Problem(status, path, f"{kind}: not what {_listed(readers)} read; `dvc repro` reruns that", readers)
        elif kind == "unknown":
            yield Problem("WARN", path, f"a source of unknown kind, read by {_listed(readers)}", readers)


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
            outs_below = [out for out in digests if out.startswith(path + "/")]
            complete = outs_below and all(Path(out).exists() for out in outs_below)  # if not, the check of outs says so
            if complete and repository.hasher.path(Path(path)) != md5:
                yield Problem("FAIL", path, f"{stage} read other files than are there now", (stage,))


def provenance(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """Every run recorded itself, and the digests that it recorded are those of dvc.lock."""
    for stage in stages:
        path = next((out for out in repository.runs[stage].outs if "provenance" in out), stage)
        recorded = repository.provenance(stage)
        if recorded is None:
            if not (repository.allow_missing and not Path(path).exists()):
                yield Problem("FAIL", path, "absent or unreadable; `dvc checkout` restores it", (stage,))
            continue
        for out, md5 in repository.products(stage).items():
            wrote = recorded.get("outs", {}).get(out)
            if wrote != md5:
                evidence = f"dvc.lock has {md5}, but {stage} recorded that it wrote {wrote}: committed by hand?"
                yield Problem("FAIL", out, evidence, (stage,))


def parameters(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
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


def unfinished(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:  # noqa: ARG001 a check's arguments
    """Every stage that dvc.yaml declares has finished."""
    for name in repository.declared.keys() - repository.runs.keys():
        yield Problem("WARN", name, "declared in dvc.yaml, but dvc.lock has no run of it; `dvc repro` runs it", ())


def frozen(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """No stage is frozen."""
    for stage in stages:
        if stage in repository.declared and repository.declared[stage].frozen:
            yield Problem("WARN", stage, "frozen: `dvc repro` calls it up to date whatever changes", (stage,))


def committed(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:  # noqa: ARG001 a check's arguments
    """dvc.lock is the one of git's HEAD."""
    shown = subprocess.run(["git", "show", f"HEAD:./{DVC_LOCK}"], capture_output=True, check=False)
    if shown.returncode:
        yield Problem("WARN", str(DVC_LOCK), "git's HEAD has none, so no history vouches for it", ())
    elif shown.stdout != DVC_LOCK.read_bytes():
        yield Problem("WARN", str(DVC_LOCK), "differs from git's HEAD; `git diff dvc.lock` shows how", ())


def declared_imports(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """Every stage declares the modules that it imports."""
    readers: dict[tuple[Path, str], list[str]] = defaultdict(list)
    for stage in stages:
        declared = repository.declared.get(stage)
        if declared is None or declared.script is None or not Path(declared.script).exists():
            continue  # other checks say so of a stage that dvc.yaml lacks, and of a file that is not there
        code = [dep for dep in declared.deps if repository.graph.source_kind(dep) == CODE]
        for module in undeclared(Path(declared.script), code, Path()):
            readers[module, declared.script].append(stage)
    for (module, script), names in readers.items():
        evidence = f"imported by {script}, but no dependency of {_listed(names)}"
        yield Problem("FAIL", module.as_posix(), evidence, tuple(names))


def environment(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """The packages installed are those of the runs."""
    readers: dict[tuple[str, str, str], list[str]] = defaultdict(list)  # by package, version then, version now
    for stage in stages:
        for package, then in (repository.provenance(stage) or {}).get("packages", {}).items():
            try:
                now = version(package)
            except PackageNotFoundError:
                now = "absent"
            if now != then:
                readers[package, then, now].append(stage)
    for (package, then, now), names in readers.items():
        yield Problem("WARN", package, f"{then} when {_listed(names)} ran, {now} now", tuple(names))


def devices(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """Each dataset was rendered on devices of one kind."""
    for stage in stages:
        found = (repository.provenance(stage) or {}).get("devices", {})
        if len(found) > 1:
            counts = ", ".join(f"{number} shards on {device}" for device, number in found.items())
            yield Problem("WARN", stage, f"{counts}: last bits may differ between them", (stage,))


def datasets(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
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
                evidence = f"shards of the index that are not there, or the other way: {_listed(indexed ^ there)}"
                yield Problem("FAIL", path, evidence, (stage,))
            images = (repository.provenance(stage) or {}).get("images", rows)
            if images != rows:
                yield Problem("FAIL", f"{path}/index.jsonl", f"{rows} images, but {images} were made", (stage,))


def calibration_samples(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """Every image of a calibration set that stems from a dataset stands in that dataset's index."""
    for stage in stages:
        datasets = [Path(dep) for dep in repository.runs[stage].deps if dep.startswith(DATASETS + "/")]
        if not datasets or not all(dataset.exists() for dataset in datasets):
            continue
        for path in repository.products(stage):
            table = Path(path) / "samples.csv"
            if not path.startswith(CALIBRATIONS + "/") or not table.exists():
                continue
            strangers: set[str] = set()
            with table.open(encoding="utf-8", newline="") as file:
                for row in csv.DictReader(file):
                    strangers.update(row["key"].split("+"))  # A+B: an image mixed of two samples
            for dataset in datasets:
                with suppress(
                    OSError, ValueError, KeyError
                ):  # an unreadable index is reported by the check of datasets
                    strangers.difference_update(key for key, _ in samples(dataset))
            if strangers:
                indices = ", ".join(f"{dataset}/index.jsonl" for dataset in datasets)
                evidence = f"{len(strangers)} samples are not in {indices}: {_listed(strangers)}"
                yield Problem("FAIL", str(table), evidence, (stage,))


def checkpoints(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """The integers of every weight fill their packed bytes; steps are positive, zero points levels of the grid."""
    for stage in stages:
        for path in repository.products(stage):
            if not path.startswith(CHECKPOINTS + "/"):
                continue
            for file in sorted(Path(path).glob("*.safetensors")):
                try:
                    description = json.loads((Path(path) / "quantization.json").read_text(encoding="utf-8"))
                    faults = list(_faults_of_weights(description["weights"], load_file(file)))
                except (OSError, ValueError, KeyError, SafetensorError) as error:
                    faults = [f"unreadable: {error}"]
                for evidence in faults:
                    yield Problem("FAIL", str(file), evidence, (stage,))


CHECKS: dict[str, Callable[[Repository, Collection[str]], Iterator[Problem]]] = {
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
    return f"other bytes than dvc.lock records: {_listed(changed)}; `dvc checkout` restores them"


def _readers_of_sources(repository: Repository, stages: Collection[str]) -> dict[tuple[str, str], tuple[str, ...]]:
    """The stages that read a source, which no stage writes, by its path and its digest."""
    readers: dict[tuple[str, str], list[str]] = defaultdict(list)
    for stage in stages:
        for path, md5 in repository.runs[stage].deps.items():
            if not repository.graph.producers_below(path):
                readers[path, md5].append(stage)
    return {source: tuple(names) for source, names in readers.items()}


def _listed(names: Collection[str]) -> str:
    first = ", ".join(sorted(names)[:NAMES_LISTED])
    return f"{first} and {len(names) - NAMES_LISTED} more" if len(names) > NAMES_LISTED else first


def _first_difference(key: str, then: Any, now: Any) -> str:
    """The first value below a key of params.yaml that is another now."""
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


def _faults_of_weights(layers: dict[str, Any], tensors: dict[str, Any]) -> Iterator[str]:
    """What is wrong with a checkpoint's tensors, by what quantization.json says of each layer."""
    for name, layer in layers.items():
        bits, count = layer["bits"], int(np.prod(layer["shape"]))
        packed, step, zero_point = tensors[f"{name}.integers"], tensors[f"{name}.step"], tensors[f"{name}.zero_point"]
        needed = math.ceil(count * bits / 8)
        if packed.size != needed:
            yield f"{name}: {packed.size} bytes, but {count} integers of {bits} bits need {needed}"
        if not (np.isfinite(step) & (step > 0)).all():
            yield f"{name}: a step is not a positive number"
        if not ((zero_point == zero_point.round()) & (zero_point >= 0) & (zero_point < 2**bits)).all():
            yield f"{name}: a zero point is no level of {bits} bits"
