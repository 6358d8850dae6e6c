"""Which images of a dataset a network is calibrated on, and why not the others. Without torch."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from pipeline_lib.models.preprocessing import Pixels
from pipeline_lib.params.treatments import Treatment

Values = npt.NDArray[np.float64]
BLOCK = 128  # images that are compared with as many others at a time
TOLERANCE = 1e-6  # of a cosine in single precision


@dataclass(frozen=True)
class Scores:
    """Scores of n images, (n,) each; None where the network does not have what a score is made from."""

    energy: Values
    batch_norm: Values | None
    patch_entropy: Values | None

    def of(self, image: int) -> dict[str, float]:
        """The scores of one image by name, rounded to six digits."""
        scores = {"energy": self.energy, "batch_norm": self.batch_norm, "patch_entropy": self.patch_entropy}
        return {name: float(f"{values[image]:.6g}") for name, values in scores.items() if values is not None}


def select(
    keys: Sequence[str],
    classes: Sequence[Sequence[int]],
    pixels: Pixels,
    scores: Scores,
    treatment: Treatment,
    count: int,
) -> list[str]:
    """Why each of n images is left out, "" if it is kept; at most `count` are kept.

    Near-duplicates are left out first. Each score then leaves out its share of the images that remained, whatever the
    other scores leave out. Of the rest, those are kept that balance the classes, or else the first.

    Args:
        keys: names of the images, for the reasons.
        classes: those that each image is meant to show.
        pixels: uint8 (n, h, w, 3).
        scores: of the images.
        treatment: the similarity of duplicates, the shares to leave out, and whether classes are balanced.
        count: of images to keep.
    """
    reasons = [""] * len(keys)
    for later, earlier in near_duplicates(pixels, treatment.duplicate_similarity).items():
        reasons[later] = f"near-duplicate of {keys[earlier]}"
    left = np.array([i for i, reason in enumerate(reasons) if not reason])
    unfit = {"energy": highest(left, scores.energy, treatment.energy)}
    if scores.batch_norm is not None:
        unfit["batch-norm sensitivity"] = highest(left, scores.batch_norm, treatment.batch_norm)
    if scores.patch_entropy is not None:  # images of little variety have little
        unfit["patch entropy"] = highest(left, -scores.patch_entropy, treatment.patch_entropy)
    for reason, images in unfit.items():
        for i in images:
            reasons[i] = reasons[i] or reason
    rest = [i for i, reason in enumerate(reasons) if not reason]
    taken = set(balanced(rest, classes, count) if treatment.balance else rest[:count])
    for i in rest:
        if i not in taken:
            reasons[i] = "class balance" if treatment.balance else "surplus"
    return reasons


def highest(candidates: npt.NDArray[np.int64], values: Values, share: float) -> list[int]:
    """The candidates with the highest values: this share of all candidates, rounded down."""
    order = np.argsort(-values[candidates], kind="stable")
    return [int(i) for i in candidates[order[: int(share * len(candidates))]]]


def near_duplicates(pixels: Pixels, similarity: float) -> dict[int, int]:
    """Images that are like an earlier one: a near-duplicate's index -> the first image that it is like.

    Alike are images (n, h, w, 3) with at least this cosine similarity of their pixels about the image's own mean, so
    that brightness and contrast do not count. What is like a near-duplicate alone is none itself.
    """
    originals: dict[int, int] = {}
    for start in range(0, len(pixels), BLOCK):
        block = directions(pixels[start : start + BLOCK])
        blocks = range(0, start + 1, BLOCK)
        cosines = np.concatenate([block @ directions(pixels[s : s + BLOCK]).T for s in blocks], axis=1)
        for position, earlier in np.argwhere(cosines >= similarity - TOLERANCE):  # in order of both
            later = start + int(position)
            if earlier < later and earlier not in originals and later not in originals:
                originals[later] = int(earlier)
    return originals


def directions(pixels: Pixels) -> npt.NDArray[np.float32]:
    """Images as unit vectors about their own mean, (n, h * w * 3); a constant image is zero."""
    flat = pixels.reshape(len(pixels), -1).astype(np.float32)
    flat -= flat.mean(1, keepdims=True)
    length = np.linalg.norm(flat, axis=1, keepdims=True).astype(np.float32)
    flat /= np.where(length > 0, length, 1)
    return flat


def balanced(candidates: Sequence[int], classes: Sequence[Sequence[int]], count: int) -> list[int]:
    """`count` of the candidates, or all if there are fewer, taken in rounds.

    In round r an image is taken if fewer than r images were taken of one of its classes. An image of several classes
    counts for all of them; one without classes is always taken.
    """
    taken: list[int] = []
    taken_of_class: Counter[int] = Counter()
    left = list(candidates)
    limit = 0
    while left and len(taken) < count:
        limit += 1
        passed_over: list[int] = []
        for i in left:
            wanted = not classes[i] or any(taken_of_class[c] < limit for c in classes[i])
            if wanted and len(taken) < count:
                taken.append(i)
                taken_of_class.update(classes[i])
            else:
                passed_over.append(i)
        left = passed_over
    return taken
