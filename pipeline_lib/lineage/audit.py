"""The audit: checks of a pipeline, and whether real images reach a checkpoint."""

from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

from pipeline_lib.lineage.checks import run_checks
from pipeline_lib.lineage.findings import Check, listed
from pipeline_lib.lineage.records import Record
from pipeline_lib.lineage.repository import Repository


@dataclass(frozen=True)
class Verdict:
    """Whether real images reach a checkpoint: the way by which they do, or why that cannot be said."""

    checkpoint: str
    way: list[str]  # from the checkpoint to the real images; empty if no record and no dependency leads to any
    kind: str  # of these images; empty if there are none
    doubts: list[str]  # artifacts upstream that failed a check
    stated: list[str]  # what the user says that images upstream are

    @property
    def text(self) -> str:
        """The way; or why it cannot be said; or `none`, where every record upstream passed all checks and shows it."""
        if self.way:
            return f"{self.kind}, by {' <- '.join([self.checkpoint, *self.way])}"
        if self.doubts:
            return f"cannot be said, because {listed(self.doubts)} failed"
        if self.stated:
            return f"cannot be said: stated by the user to be {' and '.join(self.stated)}"
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
    doubts = dict.fromkeys(
        problem.artifact
        for check in checks
        for problem in check.problems
        if problem.status == "FAIL" and not (problem.stages and ancestors.isdisjoint(problem.stages))
    )
    way = repository.graph.way_of_real_images(stage)
    read = [repository.records[ancestor] for ancestor in sorted(ancestors & repository.records.keys())]
    stated = dict.fromkeys(origin for record in read for origin in record.origins)
    return Verdict(checkpoint, [path for path, _ in way], way[-1][1] if way else "", list(doubts), list(stated))


def audit_lines(repository: Repository, result: Audit, artifact: str | None) -> Iterator[str]:
    """The audit for people, a line at a time."""
    if artifact is not None:
        yield from _ancestry_lines(repository, repository.stage_of(artifact))
    for check in result.checks:
        yield f"{check.status:4}  {check.name}: {check.evidence}"
        for problem in check.problems:
            yield f"      {problem.status} {problem.artifact}: {problem.evidence}"
    yield f"{len(result.stages)} stages, {result.bytes_hashed / 2**20:.1f} MiB hashed"
    for verdict in result.verdicts:
        yield f"real images upstream of {verdict.checkpoint}: {verdict.text}"


def _ancestry_lines(repository: Repository, target: str) -> Iterator[str]:
    """Each run with what it wrote and read, and below each thing that it read the stage that made that."""
    seen: set[str] = set()
    todo: list[tuple[int, str, bool]] = [(0, target, True)]  # depth; a stage, or a line of a source
    while todo:
        depth, text, is_stage = todo.pop()
        indent = "  " * depth
        if not is_stage or text in seen:
            yield f"{indent}{text}{' (above)' if is_stage else ''}"
            continue
        seen.add(text)
        yield f"{indent}{text}  ({_circumstances(repository.records.get(text))})"
        for path, md5 in repository.products(text).items():
            yield f"{indent}  wrote {path}  {md5[:10]}"
        sources = repository.graph.sources(text)
        below: list[tuple[int, str, bool]] = []
        for path in repository.graph.reads[text]:
            if path in sources:
                kind = repository.graph.kind(text, path)
                below.append((depth + 1, f"read {path}  {sources[path][:10]}  ({kind})", False))
            below.extend((depth + 1, producer, True) for producer in repository.graph.producers_below(path))
        todo.extend(reversed(below))


def _circumstances(record: Record | None) -> str:
    """Commit, seconds and device of a run."""
    if record is None:
        return "no record"
    commit, edits = (record.git_commit or "no commit")[:7], "" if record.git_clean else " with edits"
    device = record.device or ", ".join(record.devices) or record.processor
    return f"git {commit}{edits}, {record.wall_seconds:.0f} s, {device}"
