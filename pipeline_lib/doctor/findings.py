"""What a check finds."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from pipeline_lib.errors import InputError


@dataclass(frozen=True)
class Finding:
    """A line of the doctor's: FAIL is what a stage would refuse, WARN what it would not."""

    status: Literal["OK", "WARN", "FAIL"]
    about: str
    text: str


def guarded(about: str, findings: Iterator[Finding]) -> Iterator[Finding]:
    """The findings; what the check refuses is the last of them."""
    try:
        yield from findings
    except InputError as error:
        yield Finding("FAIL", about, str(error))
