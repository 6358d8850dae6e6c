"""Images mixed two at a time after they were rendered: mixup (Zhang et al. 2018) and CutMix (Yun et al. 2019)."""

from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np

from pipeline_lib.artifacts.fingerprints import seed_of
from pipeline_lib.errors import InputError
from pipeline_lib.models.preprocessing import Pixels

Record = dict[str, Any]
Rule = Callable[[Pixels, Pixels, float, np.random.Generator], Pixels]


def mix_images(
    rule: Literal["mixup", "cutmix"], pixels: Pixels, records: Sequence[Record], seed: int
) -> tuple[Pixels, list[Record]]:
    """Every image mixed with another, drawn at random: (n, h, w, 3) and a record each -> the same.

    The weight lambda of the first is drawn from Beta(1, 1). A mixed image of A and B has key `A+B` and the classes and
    prompts of both.

    Raises:
        InputError: there is but one image.
    """
    if len(records) < 2:
        raise InputError(
            f"treatment {rule}: found {len(records)} usable images, mixing takes two; raise the recipe's `count`"
        )
    mix_two, mixed, described = RULES[rule], np.empty_like(pixels), []
    for i, record in enumerate(records):
        rng = np.random.default_rng(seed_of(rule, seed, record["key"]))
        partner = (i + int(rng.integers(1, len(records)))) % len(records)
        mixed[i] = mix_two(pixels[i], pixels[partner], float(rng.beta(1, 1)), rng)
        described.append(_mixed_record(record, records[partner]))
    return mixed, described


def mixup(one: Pixels, other: Pixels, weight: float, rng: np.random.Generator) -> Pixels:  # noqa: ARG001 a rule's
    """The sum lambda * one + (1 - lambda) * other, rounded."""
    return np.rint(weight * one + (1 - weight) * other.astype(np.float64)).astype(np.uint8)


def cutmix(one: Pixels, other: Pixels, weight: float, rng: np.random.Generator) -> Pixels:
    """One image with a box of the other in the same place; the box has 1 - lambda of the area, where it fits.

    Its centre is anywhere in the image, and what falls outside is cut off.
    """
    spans = []
    for size in one.shape[:2]:
        centre, half = int(rng.integers(size)), size * np.sqrt(1 - weight) / 2
        spans.append(slice(max(0, round(centre - half)), round(centre + half)))
    mixed = one.copy()
    mixed[*spans] = other[*spans]
    return mixed


RULES: dict[str, Rule] = {"mixup": mixup, "cutmix": cutmix}


def _mixed_record(one: Record, other: Record) -> Record:
    return {
        "key": f"{one['key']}+{other['key']}",
        "classes": list(dict.fromkeys([*one["classes"], *other["classes"]])),
        "prompt": f"{one.get('prompt', '')} + {other.get('prompt', '')}",
    }
