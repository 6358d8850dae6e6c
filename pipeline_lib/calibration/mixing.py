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
    """Every image mixed with another that is drawn at random: pixels, uint8 (n, h, w, 3), and a record for each.

    The weight lambda of the first is drawn from Beta(1, 1). A mixed image of A and B has key `A+B` and the classes and
    prompts of both.

    Raises:
        InputError: there are fewer than two images.
    """
    if len(records) < 2:
        raise InputError(
            f"treatment {rule}: found {len(records)} usable images, mixing takes two; raise the recipe's `count`"
        )
    mix_two = RULES[rule]
    mixed = np.empty_like(pixels)
    mixed_records = []
    for i, record in enumerate(records):
        rng = np.random.default_rng(seed_of(rule, seed, record["key"]))
        partner = (i + int(rng.integers(1, len(records)))) % len(records)
        mixed[i] = mix_two(pixels[i], pixels[partner], float(rng.beta(1, 1)), rng)
        mixed_records.append(_mixed_record(record, records[partner]))
    return mixed, mixed_records


def mixup(one: Pixels, other: Pixels, weight: float, rng: np.random.Generator) -> Pixels:  # noqa: ARG001 a rule has it
    """The sum lambda * one + (1 - lambda) * other, rounded."""
    return np.rint(weight * one + (1 - weight) * other.astype(np.float64)).astype(np.uint8)


def cutmix(one: Pixels, other: Pixels, weight: float, rng: np.random.Generator) -> Pixels:
    """One image with a box of the other in the same place; the box has 1 - lambda of the area, where it fits.

    The box is centred anywhere in the image; what falls outside of the image is cut off.
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
