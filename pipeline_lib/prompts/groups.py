"""Which classes share a prompt."""

import itertools
import math
import random
from collections.abc import Iterator

from pipeline_lib.prompts.similarity import Similarities

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
