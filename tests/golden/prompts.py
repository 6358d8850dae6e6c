"""The prompts of a recipe of each sort."""

import random
from itertools import islice
from pathlib import Path
from typing import Any, cast

import numpy as np

from pipeline_lib.params.base import validate
from pipeline_lib.params.prompts import PromptRecipe, Recipe
from pipeline_lib.prompts.groups import groups_by_similarity
from pipeline_lib.prompts.strategies import Surroundings, write_prompts
from pipeline_lib.prompts.vocabulary import read_vocabulary
from tests.golden.digests import digest

ROOT = Path(__file__).resolve().parents[2]
VERSION = 1  # It only says that a change was meant: the identity of a dataset has the digest of its prompts.

RECIPES: dict[str, dict[str, Any]] = {
    "single": {"strategy": "single"},
    "mixup": {"strategy": "mixup"},
    "more-than-pairs": {"strategy": "mixup", "count": 100, "seed": 1},
    "three": {"strategy": "mixup", "classes_per_prompt": 3, "templates": ["a photo of {}", "a drawing of {}"]},
    "defined": {"strategy": "mixup", "definitions": True, "negative_prompt": "text"},
    "embeddings": {"strategy": "mixup", "fusion": "embedding", "concentration": 0.5},
}


def recipe(name: str) -> PromptRecipe:
    values = {"reads": str(ROOT / "data/fashion/classes.csv"), "count": 24, **RECIPES[name]}
    made: PromptRecipe = validate(cast(Any, Recipe), values, f"prompts.{name}")
    return made


def compute() -> dict[str, str]:
    classes = read_vocabulary(ROOT / "data/fashion/classes.csv")
    surroundings = Surroundings(classes, ROOT / "data/fashion/generator")
    prompts = {name: digest(list(write_prompts(name, recipe(name), surroundings))) for name in RECIPES}
    places = np.arange(10.0)
    similarities = -np.abs(places[:, None] - places)  # stand for those of a text encoder, which are not exact
    groups = {
        name: digest(list(islice(groups_by_similarity(similarities, 2, near, random.Random(0)), 100)))
        for name, near in (("similar groups", True), ("dissimilar groups", False))
    }
    return prompts | groups
