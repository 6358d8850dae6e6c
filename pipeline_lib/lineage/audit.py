"""The audit: checks of a pipeline, and whether real images reach a checkpoint."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pipeline_lib.lineage.checks import Check, run_checks
from pipeline_lib.lineage.graph import CODE
from pipeline_lib.lineage.repository import Repository


@dataclass(frozen=True)
class Verdict:
    """Whether real images reach a checkpoint: the way by which they do, or why that cannot be said."""

    checkpoint: str
    way: list[str]  # from the checkpoint to the real images; empty if dvc.lock knows none
    kind: str  # of these images; empty if there are none
    doubts: list[str]  # artifacts upstream that failed a check

    @property
    def text(self) -> str:
        """`none`, the way, or why it cannot be said."""
        if self.way:
            return f"{self.kind}, by {' <- '.join([self.checkpoint, *self.way])}"
        if self.doubts:
            return f"cannot be said: {', '.join(self.doubts)} failed"
        return "none"


@dataclass(frozen=True)
class Audit:
    """The stages that were looked at, and what was found."""

    stages: list[str]
    checks: list[Check]
    verdicts: list[Verdict]
    bytes_hashed: int

    @property
    def failed(self) -> bool:
        """Whether a check failed."""
        return any(check.status == "FAIL" for check in self.checks)

    def to_json(self) -> dict[str, Any]:
        """The audit as `audit --json` prints it."""
        return {
            "failed": self.failed,
            "stages": self.stages,
            "bytes_hashed": self.bytes_hashed,
            "checks": [{"status": check.status, **asdict(check)} for check in self.checks],
            "real_images": [{"text": verdict.text, **asdict(verdict)} for verdict in self.verdicts],
        }


def run_audit(repository: Repository, artifact: str | None, made_before: list[Check] | None = None) -> Audit:
    """Check everything, or one artifact and what it was made from; checks that were made before count as well.

    Raises:
        InputError: no finished stage wrote the artifact.
    """
    target = None if artifact is None else repository.stage_of(artifact)
    stages = list(repository.runs) if target is None else repository.graph.ancestors(target)
    checks = run_checks(repository, stages) + (made_before or [])
    verdicts = [
        _verdict(repository, checkpoint, stage, checks)
        for checkpoint, stage in repository.checkpoints().items()
        if stage in stages
    ]
    return Audit(stages, checks, verdicts, repository.hasher.bytes)


def _verdict(repository: Repository, checkpoint: str, stage: str, checks: list[Check]) -> Verdict:
    ancestors = set(repository.graph.ancestors(stage))
    doubts: list[str] = []
    for check in checks:
        for problem in check.problems:
            upstream = not ancestors.isdisjoint(problem.stages)
            if problem.status == "FAIL" and upstream and problem.artifact not in doubts:
                doubts.append(problem.artifact)
    way = repository.graph.way_of_real_images(stage) or []
    kind = repository.graph.source_kind(way[-1].path) if way else ""
    return Verdict(checkpoint, [link.path for link in way], kind, doubts)


def audit_lines(repository: Repository, result: Audit, artifact: str | None) -> Iterator[str]:
    """The audit for people, a line at a time."""
    if artifact is not None:
        yield from _ancestry_lines(repository, repository.stage_of(artifact), 0, set())
    for check in result.checks:
        yield f"{check.status:4}  {check.name}: {check.evidence}"
        for problem in check.problems:
            yield f"      {problem.status} {problem.artifact}: {problem.evidence}"
    yield f"{len(result.stages)} stages, {result.bytes_hashed / 2**20:.1f} MiB hashed"
    for verdict in result.verdicts:
        yield f"real images upstream of {verdict.checkpoint}: {verdict.text}"


def _ancestry_lines(repository: Repository, stage: str, depth: int, seen: set[str]) -> Iterator[str]:
    """The stage's run, what it wrote and read, and below each thing it read the stage that made that."""
    indent, run = "  " * depth, repository.runs[stage]
    if stage in seen:
        yield f"{indent}{stage} (above)"
        return
    seen.add(stage)
    yield f"{indent}{stage}  ({_circumstances(repository.provenance(stage))})"
    for path, md5 in repository.products(stage).items():
        yield f"{indent}  wrote {path}  {md5[:10]}"
    for path, md5 in run.deps.items():
        producers = repository.graph.producers_below(path)
        kind = repository.graph.source_kind(path)
        if not producers and kind != CODE:
            yield f"{indent}  read {path}  {md5[:10]}  ({kind})"
        for producer in producers:
            yield from _ancestry_lines(repository, producer, depth + 1, seen)


def _circumstances(provenance: dict[str, Any] | None) -> str:
    """Commit, seconds and device of a run."""
    if not provenance:
        return "no provenance"
    commit = str(provenance.get("git_commit") or "no commit")[:7]
    edits = "" if provenance.get("git_clean") else " with edits"
    device = provenance.get("device") or ", ".join(provenance.get("devices", {})) or provenance.get("processor", "")
    return f"git {commit}{edits}, {provenance.get('wall_seconds', 0):.0f} s, {device}"
