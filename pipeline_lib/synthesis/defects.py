"""What is wrong with an image, as far as its pixels tell."""

from collections import Counter
from typing import Any

from pipeline_lib.errors import RunError
from pipeline_lib.synthesis.generator import Picture

LISTED = 20  # bad images that an error names


def defect(picture: Picture, blank_deviation: float) -> str:
    """`nan`, `unsafe` (blanked by the safety checker), `constant`, `blank`, or nothing: the first that holds."""
    for name, holds in (
        ("nan", picture.not_a_number),
        ("unsafe", picture.unsafe),
        ("constant", picture.pixels.min() == picture.pixels.max()),
        ("blank", picture.pixels.std() < blank_deviation),
    ):
        if holds:
            return name
    return ""


class Tally:
    """Counts the images of a dataset, and the bad ones: with a defect, or with the pixels of an earlier image."""

    def __init__(self) -> None:
        self.images = 0
        self.counts: Counter[str] = Counter()
        self._listed: list[str] = []

    def count(self, row: dict[str, Any]) -> None:
        """Count a sample by its row of the dataset's index."""
        self.images += 1
        reason = row["defect"] or (f"duplicate of {row['duplicate_of']}" if row["duplicate_of"] else "")
        if reason:
            self.counts[reason.split()[0]] += 1
            if len(self._listed) < LISTED:
                self._listed.append(f"{row['key']} ({reason})")

    def check(self, most: float) -> None:
        """Hold the share of bad images to a bound.

        Raises:
            RunError: there are more; it lists the first.
        """
        bad = self.counts.total()
        if bad > most * self.images:
            more = f" and {bad - LISTED} more" if bad > LISTED else ""
            raise RunError(
                f"{bad} of {self.images} images are bad, more than `synthesize.max_bad_fraction` in params.yaml allows "
                f"({most}): {', '.join(self._listed)}{more}; change prompts, steps or guidance, or raise the bound"
            )
