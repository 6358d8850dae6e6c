"""Which images of a dataset a network is calibrated on, and why not the others. No torch."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline_lib.models.preprocessing import Pixels
from pipeline_lib.params.treatments import Treatment

Values = npt.NDArray[np.float64]
BLOCK = 128  # images that are held against one another at a time
TOLERANCE = 1e-6  # of a cosine in single precision


@dataclass(frozen=True)
class Scores:
    """Scores of n images, (n,) each; none where a score does not apply to the network."""

    energy: Values
    batch_norm: Values | None
    patch_entropy: Values | None

    def of(self, image: int) -> dict[str, float]:
        """Those of one image, to six digits."""
        values = {"energy": self.energy, "batch_norm": self.batch_norm, "patch_entropy": self.patch_entropy}
        return {name: float(f"{found[image]:.6g}") for name, found in values.items() if found is not None}


def select(
    keys: Sequence[str],
    classes: Sequence[Sequence[int]],
    pixels: Pixels,
    scores: Scores,
    treatment: Treatment,
    count: int,
) -> list[str]:
    """Why each image is left out, "" if it is kept; at most `count` are.

    Near-duplicates go first. The shares of each score are of what is left then, so that no score depends on the order
    of the others. Of the rest those are taken that balance the classes, or the first.
    """
    reasons = [""] * len(keys)
    for later, earlier in near_duplicates(pixels, treatment.duplicate_similarity).items():
        reasons[later] = f"near-duplicate of {keys[earlier]}"
    left = np.array([i for i, reason in enumerate(reasons) if not reason])
    for reason, values, share in (
        ("energy", scores.energy, treatment.energy),
        ("batch-norm sensitivity", scores.batch_norm, treatment.batch_norm),
        ("patch entropy", None if scores.patch_entropy is None else -scores.patch_entropy, treatment.patch_entropy),
    ):
        for i in [] if values is None else highest(left, values, share):
            reasons[i] = reasons[i] or reason
    rest = [i for i, reason in enumerate(reasons) if not reason]
    taken = set(balanced(rest, classes, count) if treatment.balance else rest[:count])
    for i in rest:
        if i not in taken:
            reasons[i] = "class balance" if treatment.balance else "surplus"
    return reasons


def highest(candidates: npt.NDArray[np.int64], values: Values, share: float) -> list[int]:
    """The candidates with the highest values, as many as the share of them comes to, rounded down."""
    order = np.argsort(-values[candidates], kind="stable")
    return [int(i) for i in candidates[order[: int(share * len(candidates))]]]


def near_duplicates(pixels: Pixels, similarity: float) -> dict[int, int]:
    """Images, (n, h, w, 3), with a cosine similarity this high to an earlier one that is none: later -> earliest.

    Pixels are centred on the image's mean, so brightness and contrast do not count.
    """
    found: dict[int, int] = {}
    for start in range(0, len(pixels), BLOCK):
        block = directions(pixels[start : start + BLOCK])
        blocks = range(0, start + 1, BLOCK)
        cosines = np.concatenate([block @ directions(pixels[s : s + BLOCK]).T for s in blocks], axis=1)
        for row, earlier in np.argwhere(cosines >= similarity - TOLERANCE):
            later = start + int(row)
            if earlier < later and earlier not in found:
                found.setdefault(later, int(earlier))
    return found


def directions(pixels: Pixels) -> npt.NDArray[np.float32]:
    """Images as unit vectors about their own mean, (n, h * w * 3); a constant image is zero."""
    flat = pixels.reshape(len(pixels), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True).astype(np.float32)
    flat /= np.where(length > 0, length, 1)
    return flat


def balanced(candidates: Sequence[int], classes: Sequence[Sequence[int]], count: int) -> list[int]:
    """`count` of the candidates, in rounds: each round lets every class have one image more, the first that shows it.

    An image of several classes is taken if one of them is short; it counts for all of them.
    """
    taken: list[int] = []
    left, have, share = list(candidates), Counter[int](), 0
    while left and len(taken) < count:
        share += 1
        passed: list[int] = []
        for i in left:
            short = not classes[i] or any(have[c] < share for c in classes[i])
            if short and len(taken) < count:
                taken.append(i)
                have.update(classes[i])
            else:
                passed.append(i)
        left = passed
    return taken
