"""From a recipe to prompts. A strategy is a function; `STRATEGIES` has one for each kind of recipe."""

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from typing import Any

from pipeline_lib.artifacts.fingerprints import seed_of
from pipeline_lib.errors import InputError
from pipeline_lib.params.prompts import ClassRecipe, FromFile, Mixup, PromptRecipe, Single
from pipeline_lib.prompts.captions import read_captions
from pipeline_lib.prompts.groups import class_groups, groups_by_similarity
from pipeline_lib.prompts.similarity import text_similarities
from pipeline_lib.prompts.vocabulary import ClassName, read_vocabulary


@dataclass(frozen=True)
class Prompt:
    """What one image is rendered from."""

    text: str
    classes: list[int]  # that it names, by index
    weights: list[float]  # of these classes, with sum 1
    parts: list[str] | None = None  # a prompt a class, whose embeddings are mixed by the weights; `text` describes them


@dataclass(frozen=True)
class Surroundings:
    """What a strategy may look at besides its recipe."""

    classes: list[ClassName]  # of the classifier, in the order of its outputs
    generator: Path  # folder


Strategy = Callable[[str, Any, Surroundings], Iterator[Prompt]]  # name of the recipe, the recipe; gives endless prompts


def write_prompts(name: str, recipe: PromptRecipe, surroundings: Surroundings) -> Iterator[dict[str, Any]]:
    """The rows of a recipe: sample id, prompt, negative prompt, class indices and their weights in the mixture.

    With `fusion: embedding` a row has `parts`, see `Prompt`.

    Raises:
        InputError: what the recipe reads does not give as many prompts, or names other classes.
    """
    prompts = STRATEGIES[type(recipe)](name, recipe, surroundings)
    for number, prompt in enumerate(islice(prompts, recipe.count)):
        parts = {} if prompt.parts is None else {"parts": prompt.parts}
        yield {
            "key": sample_key(name, number),
            **parts,
            "prompt": prompt.text,
            "negative_prompt": recipe.negative_prompt,
            "fusion": "text" if prompt.parts is None else "embedding",
            "classes": prompt.classes,
            "weights": prompt.weights,
        }


def sample_key(name: str, number: int) -> str:
    """The id of a recipe's sample."""
    return f"{name}-{number:06d}"


def single(name: str, recipe: Single, surroundings: Surroundings) -> Iterator[Prompt]:
    """A class a prompt, in turn."""
    words = _words(name, recipe, surroundings)
    groups = class_groups(len(words), 1, random.Random(seed_of("prompts", recipe.seed, name)))
    for number, group in enumerate(groups):
        yield Prompt(_caption(recipe, number, [words[c] for c in group]), list(group), [1.0])


def mixup(name: str, recipe: Mixup, surroundings: Surroundings) -> Iterator[Prompt]:
    """Several classes a prompt: fused as text, or a prompt each whose embeddings are mixed."""
    words, size = _words(name, recipe, surroundings), recipe.classes_per_prompt
    if size > len(words):
        raise InputError(
            f"params.yaml: `prompts.{name}.classes_per_prompt` is {size}, but there are {len(words)} classes in "
            f"{recipe.reads}; lower it, or give more classes"
        )
    rng = random.Random(seed_of("prompts", recipe.seed, name))
    if recipe.pairs == "uniform":
        groups = class_groups(len(words), size, rng)
    else:
        texts = [recipe.templates[0].replace("{}", word.with_article()) for word in words]
        similarities = text_similarities(surroundings.generator, texts)
        groups = groups_by_similarity(similarities, size, recipe.pairs == "similar", rng)
    for number, group in enumerate(groups):
        named = [words[c] for c in group]
        if recipe.fusion == "text":
            yield Prompt(_caption(recipe, number, named), list(group), [1 / size] * size)
        else:
            seed = seed_of("weights", recipe.seed, sample_key(name, number))
            weights = draw_weights(size, recipe.concentration, seed)
            parts = [_caption(recipe, number, [word]) for word in named]
            text = " + ".join(f"{weight:.2f} {part}" for weight, part in zip(weights, parts, strict=True))
            yield Prompt(text, list(group), weights, parts)


def from_file(name: str, recipe: FromFile, surroundings: Surroundings) -> Iterator[Prompt]:  # noqa: ARG001 a strategy's
    """The captions of a file, in an order drawn by their texts: however the file is sorted, the first are a sample."""
    captions = read_captions(Path(recipe.reads), surroundings.classes)
    for caption in cycle(sorted(captions, key=lambda caption: seed_of("captions", 0, caption.text))):
        share = 1 / max(1, len(caption.classes))
        yield Prompt(caption.text, caption.classes, [share for _ in caption.classes])


STRATEGIES: dict[type[PromptRecipe], Strategy] = {Single: single, Mixup: mixup, FromFile: from_file}


def _words(name: str, recipe: ClassRecipe, surroundings: Surroundings) -> list[ClassName]:
    """The recipe's own class list: it may have other words than the classifier's, but for the same classes."""
    words = read_vocabulary(Path(recipe.reads))
    if len(words) != len(surroundings.classes):
        raise InputError(
            f"params.yaml: `prompts.{name}.reads` names {recipe.reads} of {len(words)} classes, `task.classes` a list "
            f"of {len(surroundings.classes)}; give each class a line in both"
        )
    if recipe.definitions and not any(word.definition for word in words):
        raise InputError(
            f"params.yaml: `prompts.{name}.definitions` is true, but {recipe.reads} has none; add the column "
            "`definition`, or set the key to false"
        )
    return words


def _caption(recipe: ClassRecipe, number: int, named: list[ClassName]) -> str:
    template = recipe.templates[number % len(recipe.templates)]
    return template.replace("{}", fuse(named, recipe.definitions))


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
    if not any(draws):  # all too small for a float: the distribution's limit, where one class has all the weight
        draws[rng.randrange(size)] = 1.0
    return [draw / sum(draws) for draw in draws]
