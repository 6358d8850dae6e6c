"""Checks of what is declared: dvc.yaml, params.yaml and git against dvc.lock."""

import re
import subprocess
from collections import defaultdict
from collections.abc import Collection, Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

from pipeline_lib.lineage.closure import undeclared
from pipeline_lib.lineage.findings import Problem, Status, listed
from pipeline_lib.lineage.graph import is_code
from pipeline_lib.lineage.pipeline import DVC_LOCK
from pipeline_lib.lineage.repository import Repository
from pipeline_lib.provenance.dvc_file import DVC_YAML, lookup

STAGE_NAME = re.compile(r"[a-z0-9][a-z0-9_-]*(@[a-z0-9][a-z0-9_-]*)?")
OUT_PATH = re.compile(r"([a-z0-9][a-z0-9._-]*/)*[a-z0-9][a-z0-9._-]*")


def well_formed(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:  # noqa: ARG001 a check's arguments
    """Every entry of dvc.lock is one that DVC writes; no stage depends on itself, and no two write one path."""
    for stage, fault in repository.malformed.items():
        yield Problem("FAIL", stage, f"malformed in {DVC_LOCK}: {fault}; `git checkout {DVC_LOCK}` restores it", ())
    cycle = repository.graph.cycle()
    if cycle:
        yield Problem("FAIL", cycle[0], f"in {DVC_LOCK} it depends on itself: {' <- '.join(cycle)}", ())
    writers = sorted((out, name) for name, run in repository.runs.items() for out in run.outs)
    for (out, name), (next_out, next_name) in pairwise(writers):
        if next_out == out or next_out.startswith(f"{out}/"):
            evidence = f"written by {next_name}, and {out} by {name}: whose bytes these are cannot be said"
            yield Problem("FAIL", next_out, evidence, (name, next_name))


def names(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """Names of stages and outs have only a to z, 0 to 9, hyphen and underscore, so that none looks like another."""
    for stage in {*stages, *(repository.declared.keys() - repository.runs.keys())}:
        if not STAGE_NAME.fullmatch(stage):
            evidence = f"{stage.encode('unicode_escape').decode()}: has other letters than a to z, 0 to 9, - and _"
            yield Problem("FAIL", stage, evidence, (stage,) if stage in repository.runs else ())
    for stage in stages:
        for out in repository.runs[stage].outs:
            if not OUT_PATH.fullmatch(out):
                evidence = f"{out.encode('unicode_escape').decode()}: has other letters than a to z, 0 to 9, - and _"
                yield Problem("FAIL", out, evidence, (stage,))


def declared(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """Command, dependencies, parameters and outs of every run are those that dvc.yaml declares."""
    for stage in stages:
        now, then = repository.declared.get(stage), repository.runs[stage]
        if now is None:
            yield Problem("FAIL", stage, f"stands in {DVC_LOCK}, but {DVC_YAML} declares it no more", (stage,))
            continue
        if now.command != then.command:
            yield Problem("FAIL", stage, f"ran `{then.command}`, {DVC_YAML} has `{now.command}`", (stage,))
        for what, here, there in (
            ("dependency", now.deps, then.deps),
            ("parameter", now.params, then.params),
            ("out", now.outs, then.outs),
        ):
            for name in sorted(set(here) ^ set(there)):
                lacking, having = (DVC_LOCK, DVC_YAML) if name in here else (DVC_YAML, DVC_LOCK)
                artifact = f"params.yaml: {name}" if what == "parameter" else name
                evidence = f"{what} of {stage} in {having}, but not in {lacking}; `dvc repro` reruns that"
                yield Problem("FAIL", artifact, evidence, (stage,))


def parameters(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """The values of params.yaml are those that dvc.lock says were used."""
    for stage in stages:
        now_declared = repository.declared.get(stage)
        for key, then in repository.runs[stage].params.items():
            now = lookup(repository.params, key)
            if now_declared is not None and now != then:
                status: Status = "FAIL" if now_declared.frozen else "WARN"
                rerun = "frozen, so `dvc repro` does not see it" if now_declared.frozen else "`dvc repro` reruns it"
                evidence = f"{_first_difference(key, then, now)} for {stage}; {rerun}"
                yield Problem(status, f"params.yaml: {key}", evidence, (stage,))


def unfinished(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """Every stage that dvc.yaml declares has finished, and none has outs without a run."""
    if len(stages) < len(repository.runs):
        return  # of an artifact: whether the others have finished is nothing to it
    for name in repository.declared.keys() - repository.runs.keys() - repository.malformed.keys():
        there = [out for out in repository.declared[name].outs if Path(out).exists()]
        if there:
            evidence = f"{there[0]} is there, but {DVC_LOCK} has no run that wrote it; `dvc repro` runs it"
            yield Problem("FAIL", name, evidence, (name,))
        else:
            yield Problem("WARN", name, f"declared in {DVC_YAML}, but {DVC_LOCK} has no run of it", (name,))


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


def imports(repository: Repository, stages: Collection[str]) -> Iterator[Problem]:
    """Every stage declares the modules that it imports."""
    by_script: dict[tuple[str, tuple[str, ...]], list[str]] = defaultdict(list)
    for stage in stages:
        now = repository.declared.get(stage)
        if now is not None and now.script is not None and Path(now.script).exists():
            by_script[now.script, tuple(filter(is_code, now.deps))].append(stage)
    for (script, code), importers in by_script.items():  # others say so of a stage or a script that is not there
        try:
            for module in undeclared(Path(script), code, Path()):
                evidence = f"imported by {script}, but no dependency of {listed(importers)}"
                yield Problem("FAIL", module.as_posix(), evidence, tuple(importers))
        except (SyntaxError, ValueError) as error:
            yield Problem("FAIL", script, f"its imports cannot be read: {error}", tuple(importers))


def _first_difference(key: str, then: Any, now: Any) -> str:
    """The first value below a key of params.yaml that is another now."""
    if isinstance(then, dict) and isinstance(now, dict):
        for name in then.keys() | now.keys():
            if then.get(name) != now.get(name):
                return _first_difference(f"{key}.{name}", then.get(name), now.get(name))
    return f"`{key}` was {then!r}, is {now!r}"
