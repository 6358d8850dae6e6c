"""One progress bar for long work; plain lines where the output is no terminal."""

import sys
import time
from types import TracebackType
from typing import Self

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

PLAIN_EVERY = 5.0  # seconds between lines


def notice(text: str) -> None:
    """Say something that is no error, on a line of its own."""
    print(text, file=sys.stderr, flush=True)


class ProgressBar:
    """`with ProgressBar("synthesize mixup", 1024) as bar: bar.advance(64, "12.3 images/s")`."""

    def __init__(self, title: str, total: int, done: int = 0) -> None:
        self._title, self._total, self.done, self._start, self._figure = title, total, done, done, ""
        self._began = self._printed = time.monotonic()
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[figure]}"))
            self._task = self._bar.add_task(title, total=total, completed=done, figure="")

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    @property
    def rate(self) -> float:
        """Units a second since the start."""
        return (self.done - self._start) / max(time.monotonic() - self._began, 1e-9)

    def advance(self, units: int, figure: str = "") -> None:
        """Count finished units and show the current figure, or the last one if there is none."""
        self.done += units
        self._figure = figure or self._figure
        now = time.monotonic()
        if self._bar:
            self._bar.update(self._task, completed=self.done, figure=self._figure)
        elif now - self._printed >= PLAIN_EVERY or self.done == self._total:
            self._printed = now
            left = (self._total - self.done) / self.rate if self.rate else 0
            figures = [f"{self._title}: {self.done}/{self._total}", f"{left:.0f} s left", self._figure]
            print(", ".join(filter(None, figures)), file=sys.stderr, flush=True)
