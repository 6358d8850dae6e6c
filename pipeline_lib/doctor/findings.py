"""What a check finds."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pipeline_lib.errors import as_told


@dataclass(frozen=True)
class Finding:
    """A line of the doctor's: FAIL is what a stage would refuse, WARN what it would not."""

    status: Literal["OK", "WARN", "FAIL"]
    about: str
    text: str


def guarded(about: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings; what the check refuses, or what the machine refuses it, is the last of them."""
    try:
        yield from findings
    except Exception as error:
        told = as_told(error)
        if told is None:
            raise
        yield Finding("FAIL", about, str(told))
