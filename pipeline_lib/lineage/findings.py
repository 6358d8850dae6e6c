"""What a check of the audit finds."""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

Status = Literal["OK", "WARN", "FAIL"]
NAMES_LISTED = 3  # in a message


@dataclass(frozen=True)
class Problem:
    """Something that is wrong, or may be, with one artifact."""

    status: Status
    artifact: str
    evidence: str
    stages: tuple[str, ...]  # whose outs it puts in doubt; none: those of all stages


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


def listed(names: Collection[str]) -> str:
    """The first of the names, in order, and how many more there are."""
    first = ", ".join(sorted(names)[:NAMES_LISTED])
    return f"{first} and {len(names) - NAMES_LISTED} more" if len(names) > NAMES_LISTED else first
