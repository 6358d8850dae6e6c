"""What `dvc repro` would run now, what that cost the last time, and how two artifacts came to differ."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pipeline_lib.lineage.pipeline import Run, lookup
from pipeline_lib.lineage.repository import Repository


@dataclass(frozen=True)
class Rerun:
    """A stage that would run, why, and the seconds that it took when it last did."""

    stage: str
    why: str
    seconds: float | None


def plan(repository: Repository) -> list[Rerun]:
    """Stages in the order of dvc.yaml. Those downstream may turn out to read unchanged bytes and not run."""
    reasons: dict[str, str] = {}
    for name, declared in repository.declared.items():
        run = repository.runs.get(name)
        own = "never ran" if run is None else _changed(repository, run)
        upstream = next((dep for dep in declared.deps if _written_by(repository, dep) & reasons.keys()), None)
        if declared.frozen:
            continue
        if own:
            reasons[name] = own
        elif upstream:
            reasons[name] = f"if {upstream} changes"
    return [Rerun(name, why, _seconds(repository, name)) for name, why in reasons.items()]


def _written_by(repository: Repository, dep: str) -> set[str]:
    return {
        name
        for name, declared in repository.declared.items()
        if any(dep == out or dep.startswith(out + "/") or out.startswith(dep + "/") for out in declared.outs)
    }


def _changed(repository: Repository, run: Run) -> str | None:
    declared = repository.declared[run.name]
    for key in declared.params:
        if lookup(repository.params, key) != run.params.get(key):
            return f"`{key}` of params.yaml changed"
    if set(declared.deps) != set(run.deps):
        return f"other dependencies: {', '.join(sorted(set(declared.deps) ^ set(run.deps)))}"
    for path, md5 in run.deps.items():
        if not repository.graph.producers_below(path) and (
            not Path(path).exists() or repository.hasher.path(Path(path)) != md5
        ):
            return f"{path} changed"
    for path, md5 in run.outs.items():
        if not Path(path).exists() or repository.hasher.path(Path(path)) != md5:
            return f"{path} is not what it wrote: DVC restores it from its cache, or runs the stage"
    return None


def _seconds(repository: Repository, stage: str) -> float | None:
    recorded = repository.provenance(stage) if stage in repository.runs else None
    return None if recorded is None else float(recorded["wall_seconds"])


def difference(repository: Repository, one: str, other: str) -> Iterator[str]:
    """Where the ways that led to two artifacts part: the first pair of stages that differ, and in what.

    Stages are paired by their names without the matrix, in the order in which they run.

    Raises:
        InputError: no finished stage wrote one of them.
    """
    chains = [repository.graph.ancestors(repository.stage_of(artifact)) for artifact in (one, other)]
    by_base = [{name.split("@")[0]: repository.runs[name] for name in chain} for chain in chains]
    bases = list(dict.fromkeys(base for chain in by_base for base in chain))
    for base in bases:
        left, right = (chain.get(base) for chain in by_base)
        if left is None or right is None:
            there, absent = (one, other) if right is None else (other, one)
            yield f"{base}: only {there} was made by such a stage, {absent} was not"
            return
        found = list(_differences(left, right))
        if found:
            yield f"{left.name} and {right.name}: the first that differ"
            yield from (f"  {line}" for line in found)
            return
    yield "none: every stage read the same bytes and parameters"


def _differences(one: Run, other: Run) -> Iterator[str]:
    for kind in ("params", "deps"):
        left, right = getattr(one, kind), getattr(other, kind)
        for key in dict.fromkeys([*left, *right]):
            if left.get(key) != right.get(key):
                yield f"{key}: {left.get(key, 'absent')} / {right.get(key, 'absent')}"
