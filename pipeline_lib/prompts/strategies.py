"""From classes to prompts: which classes share a prompt, and how their names are fused."""

import itertools
import math
import random
from collections.abc import Iterator

from pipeline_lib.artifacts.fingerprints import seed_of
from pipeline_lib.errors import InputError
from pipeline_lib.params.prompts import Recipe
from pipeline_lib.prompts.similarity import Similarities
from pipeline_lib.prompts.vocabulary import ClassName

Group = tuple[int, ...]


def class_groups(classes: int, size: int, rng: random.Random) -> Iterator[Group]:
    """Endless groups of `size` distinct classes.

    Classes stay balanced: a group is made of those that appeared least often, ties broken at random. No group comes
    again before all of them have come. A longer run starts with a shorter one.
    """
    all_groups = math.comb(classes, size)
    appeared = [0] * classes
    used: set[frozenset[int]] = set()
    while True:
        if len(used) == all_groups:
            used.clear()
        rarest_first = sorted(range(classes), key=lambda c: (appeared[c], rng.random()))
        # Lexicographic over the sorted classes: the first unused group is the one of the rarest classes.
        group = next(g for g in itertools.combinations(rarest_first, size) if frozenset(g) not in used)
        used.add(frozenset(group))
        for c in group:
            appeared[c] += 1
        yield tuple(rng.sample(group, size))


def groups_by_similarity(similarities: Similarities, size: int, near: bool, rng: random.Random) -> Iterator[Group]:
    """Endless groups of `size` distinct classes that are alike, or, unless `near`, unlike.

    The class that appeared least often meets those that appeared least often among the third of the other classes that
    is nearest to it, or farthest from it. Groups come again. A longer run starts with a shorter one.
    """
    classes = len(similarities)
    pool = max(size - 1, (classes - 1) // 3)
    ranked = [sorted(set(range(classes)) - {c}, key=lambda o: -similarities[c, o]) for c in range(classes)]
    appeared = [0] * classes
    while True:
        first = min(range(classes), key=lambda c: (appeared[c], rng.random()))
        others = ranked[first][:pool] if near else ranked[first][-pool:]
        group = [first, *sorted(others, key=lambda c: (appeared[c], rng.random()))[: size - 1]]
        for c in group:
            appeared[c] += 1
        yield tuple(rng.sample(group, size))


def fuse(group: list[ClassName], definitions: bool) -> str:
    """`a sneaker`, `a sneaker and a bag`, `a sneaker, a bag and a coat`; with definitions after each name."""
    names = [c.with_article() + (f", {c.definition}" if definitions and c.definition else "") for c in group]
    if len(names) == 1:
        return names[0]
    separator = "; " if definitions else ", "
    return f"{separator.join(names[:-1])} and {names[-1]}"


def draw_weights(size: int, concentration: float, seed: int) -> list[float]:
    """Weights that sum to 1 from a symmetric Dirichlet distribution: of two, the first is Beta(a, a) distributed."""
    rng = random.Random(seed)
    draws = [rng.gammavariate(concentration, 1.0) for _ in range(size)]
    return [draw / sum(draws) for draw in draws]


def write_prompts(
    name: str, recipe: Recipe, classes: list[ClassName], similarities: Similarities | None = None
) -> Iterator[dict[str, object]]:
    """The rows of a recipe: sample id, prompt, negative prompt, class indices and their weights in the mixture.

    With `fusion: embedding` a row has `parts`, a prompt a class, whose embeddings are mixed by the weights; `prompt`
    then only describes it. similarities: (classes, classes), for recipes whose `pairs` are not uniform.

    Raises:
        InputError: a prompt is to name more classes than there are.
    """
    size = recipe.classes_per_prompt
    if size > len(classes):
        raise InputError(
            f"params.yaml: `prompts.{name}.classes_per_prompt` is {size}, but there are {len(classes)} classes"
        )
    rng = random.Random(seed_of("prompts", recipe.seed, name))
    if similarities is None:
        groups = class_groups(len(classes), size, rng)
    else:
        groups = groups_by_similarity(similarities, size, recipe.pairs == "similar", rng)
    for number, group in enumerate(itertools.islice(groups, recipe.count)):
        key, template = f"{name}-{number:06d}", recipe.templates[number % len(recipe.templates)]
        row: dict[str, object] = {"key": key}
        names = [classes[c] for c in group]
        if recipe.fusion == "text":
            weights = [1 / size] * size
            row["prompt"] = template.format(fuse(names, recipe.definitions))
        else:
            weights = draw_weights(size, recipe.concentration, seed_of("weights", recipe.seed, key))
            row["parts"] = parts = [template.format(fuse([name], recipe.definitions)) for name in names]
            row["prompt"] = " + ".join(f"{weight:.2f} {part}" for weight, part in zip(weights, parts, strict=True))
        negative = {"negative_prompt": recipe.negative_prompt}
        yield {**row, **negative, "fusion": recipe.fusion, "classes": list(group), "weights": weights}
