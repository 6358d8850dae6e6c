"""What is wrong with an image, as far as its pixels tell."""

from collections import Counter
from typing import Any

from pipeline_lib.errors import RunError
from pipeline_lib.synthesis.generator import Picture

LISTED = 20  # of the bad images, in an error


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
    """Counts bad images over a dataset: those with a defect, and those with the pixels of an earlier one."""

    def __init__(self) -> None:
        self.images = 0
        self.counts: Counter[str] = Counter()
        self._first: dict[bytes, str] = {}  # key by pixel digest
        self._listed: list[str] = []

    def look(self, record: dict[str, Any]) -> str | None:
        """Count a sample; the key of an earlier one with the same pixels, if there is one."""
        self.images += 1
        earlier = self._first.setdefault(bytes.fromhex(record["pixel_sha256"]), record["key"])
        duplicate = earlier if earlier != record["key"] else None
        reason = record["defect"] or (f"duplicate of {duplicate}" if duplicate else "")
        if reason:
            self.counts[reason.split()[0]] += 1
            if len(self._listed) < LISTED:
                self._listed.append(f"{record['key']} ({reason})")
        return duplicate

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
