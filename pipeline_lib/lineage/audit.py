"""The audit: checks of a pipeline, and whether real images reach a checkpoint."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pipeline_lib.lineage.checks import Check, run_checks
from pipeline_lib.lineage.graph import CODE
from pipeline_lib.lineage.repository import Repository


@dataclass(frozen=True)
class Verdict:
    """On one checkpoint: the way by which real images reach it, or what keeps one from saying that there is none."""

    checkpoint: str
    way: list[str]  # from the checkpoint to the real images; empty if dvc.lock knows none
    kind: str  # of these images
    doubts: list[str]  # artifacts upstream that failed a check

    @property
    def text(self) -> str:
        """`none`, the way, or why it cannot be said."""
        if self.way:
            return f"{self.kind}, by {' <- '.join([self.checkpoint, *self.way])}"
        return f"cannot be said: {', '.join(self.doubts)} failed" if self.doubts else "none"


@dataclass(frozen=True)
class Audit:
    """What was found, of the stages that were looked at."""

    stages: list[str]
    checks: list[Check]
    verdicts: list[Verdict]
    bytes_hashed: int

    @property
    def failed(self) -> bool:
        """Whether a check did."""
        return any(check.status == "FAIL" for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """Plain values."""
        return {
            "failed": self.failed,
            "stages": self.stages,
            "bytes_hashed": self.bytes_hashed,
            "checks": [{"status": check.status, **asdict(check)} for check in self.checks],
            "real_images": [{"text": verdict.text, **asdict(verdict)} for verdict in self.verdicts],
        }


def audit(repository: Repository, artifact: str | None, more: list[Check] | None = None) -> Audit:
    """Check everything, or what one artifact was made from, that included. `more` checks were made elsewhere.

    Raises:
        InputError: no finished stage wrote the artifact.
    """
    target = None if artifact is None else repository.stage_of(artifact)
    stages = list(repository.runs) if target is None else repository.graph.ancestors(target)
    checks = run_checks(repository, stages) + (more or [])
    judged = {path: stage for path, stage in repository.checkpoints().items() if stage in stages}
    verdicts = [_judge(repository, path, stage, checks) for path, stage in judged.items()]
    return Audit(stages, checks, verdicts, repository.hasher.bytes)


def _judge(repository: Repository, checkpoint: str, stage: str, checks: list[Check]) -> Verdict:
    ancestors = set(repository.graph.ancestors(stage))
    doubts = [
        problem.artifact
        for check in checks
        for problem in check.problems
        if problem.status == "FAIL" and ancestors.intersection(problem.stages)
    ]
    way = repository.graph.real_images(stage) or []
    kind = repository.graph.kind(way[-1].path) if way else ""
    return Verdict(checkpoint, [link.path for link in way], kind, list(dict.fromkeys(doubts)))


def describe(repository: Repository, result: Audit, artifact: str | None) -> Iterator[str]:
    """The audit for people, a line at a time."""
    if artifact is not None:
        yield from _ancestry(repository, repository.stage_of(artifact), 0, set())
    for check in result.checks:
        yield f"{check.status:4}  {check.name}: {check.evidence}"
        for problem in check.problems:
            yield f"      {problem.status} {problem.artifact}: {problem.evidence}"
    yield f"{len(result.stages)} stages, {result.bytes_hashed / 2**20:.1f} MiB hashed"
    for verdict in result.verdicts:
        yield f"real images upstream of {verdict.checkpoint}: {verdict.text}"


def _ancestry(repository: Repository, stage: str, depth: int, seen: set[str]) -> Iterator[str]:
    indent, run = "  " * depth, repository.runs[stage]
    if stage in seen:
        yield f"{indent}{stage} (above)"
        return
    seen.add(stage)
    recorded = repository.provenance(stage) or {}
    commit, clean = str(recorded.get("git_commit") or "no commit")[:7], recorded.get("git_clean")
    where = recorded.get("device") or ", ".join(recorded.get("devices", {})) or recorded.get("processor", "")
    facts = f"git {commit}{'' if clean else ' with edits'}, {recorded.get('wall_seconds', 0):.0f} s, {where}"
    yield f"{indent}{stage}  ({facts if recorded else 'no provenance'})"
    for path, md5 in repository.products(stage).items():
        yield f"{indent}  wrote {path}  {md5[:10]}"
    for path, md5 in run.deps.items():
        makers = repository.graph.producers_below(path)
        if not makers and repository.graph.kind(path) != CODE:
            yield f"{indent}  read {path}  {md5[:10]}  ({repository.graph.kind(path)})"
        for maker in makers:
            yield from _ancestry(repository, maker, depth + 1, seen)
