"""What `dvc repro` would run now, what that cost the last time, and how two artifacts came to differ."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.lineage.pipeline import Run
from pipeline_lib.lineage.repository import Repository
from pipeline_lib.provenance.dvc_file import lookup


@dataclass(frozen=True)
class Rerun:
    """A stage that would run, why, and the seconds that it took when it last did."""

    stage: str
    reason: str
    seconds: float | None


def planned_reruns(repository: Repository) -> list[Rerun]:
    """The stages that `dvc repro` would run, in the order of dvc.yaml.

    One whose reason lies upstream does not run if that turns out to write the bytes that it wrote before.
    """
    reasons: dict[str, str] = {}
    for name, declared in repository.declared.items():
        if declared.frozen:
            continue
        run = repository.runs.get(name)
        own_reason = "never ran" if run is None else _own_reason(repository, run)
        in_doubt = [dep for dep in declared.deps if not reasons.keys().isdisjoint(_writers(repository, dep))]
        if own_reason:
            reasons[name] = own_reason
        elif in_doubt:
            reasons[name] = f"if {in_doubt[0]} changes"
    return [Rerun(name, reason, _seconds(repository, name)) for name, reason in reasons.items()]


def _writers(repository: Repository, dep: str) -> set[str]:
    """The stages that write a dependency, the folder that it lies in, or something below it."""
    names = set()
    for name, declared in repository.declared.items():
        for out in declared.outs:
            if dep == out or dep.startswith(out + "/") or out.startswith(dep + "/"):
                names.add(name)
    return names


def _own_reason(repository: Repository, run: Run) -> str | None:
    """Why the stage would run, whatever stages before it do; none if nothing of its own changed."""
    declared = repository.declared[run.name]
    for key in declared.params:
        if lookup(repository.params, key) != run.params.get(key):
            return f"`{key}` of params.yaml changed"
    if set(declared.deps) != set(run.deps):
        return f"other dependencies: {', '.join(sorted(set(declared.deps) ^ set(run.deps)))}"
    for path, md5 in run.deps.items():
        if not repository.graph.producers_below(path) and not _has_digest(repository, path, md5):
            return f"{path} changed"
    for path, md5 in run.outs.items():
        if not _has_digest(repository, path, md5):
            return f"{path} is not what it wrote: DVC restores it from its cache, or runs the stage"
    return None


def _has_digest(repository: Repository, path: str, md5: str) -> bool:
    return Path(path).exists() and repository.hasher.path(Path(path)) == md5


def _seconds(repository: Repository, stage: str) -> float | None:
    record = repository.records.get(stage)
    return None if record is None else record.wall_seconds


def difference_lines(repository: Repository, one: str, other: str) -> Iterator[str]:
    """Where the ways that led to two artifacts part: the first pair of stages that differ, and in what.

    Stages are paired by their names without the matrix, in the order in which they run.

    Raises:
        InputError: no finished stage wrote one of them.
    """
    runs_of_one, runs_of_other = _runs_by_base_name(repository, one), _runs_by_base_name(repository, other)
    for base in [*runs_of_one, *(base for base in runs_of_other if base not in runs_of_one)]:
        left, right = runs_of_one.get(base), runs_of_other.get(base)
        if left is None:
            yield f"{base}: only {other} was made by such a stage, {one} was not"
            return
        if right is None:
            yield f"{base}: only {one} was made by such a stage, {other} was not"
            return
        differences = list(_differences(left, right))
        if differences:
            yield f"{left.name} and {right.name}: the first that differ"
            yield from (f"  {line}" for line in differences)
            return
    yield "none: every stage read the same bytes and parameters"


def _runs_by_base_name(repository: Repository, artifact: str) -> dict[str, Run]:
    """The runs that led to an artifact, each by its stage's name without the matrix."""
    chain = repository.graph.ancestors(repository.stage_of(artifact))
    return {name.split("@")[0]: repository.runs[name] for name in chain}


def _differences(one: Run, other: Run) -> Iterator[str]:
    for left, right in ((one.params, other.params), (one.deps, other.deps)):
        for key in dict.fromkeys([*left, *right]):
            if left.get(key) != right.get(key):
                yield f"{key}: {left.get(key, 'absent')} / {right.get(key, 'absent')}"
