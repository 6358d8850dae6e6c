"""Prompts: balance, no repetition, and class lists that are refused."""

import itertools
import math
import random
import shutil
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline_lib.artifacts.records import read_lines
from pipeline_lib.errors import InputError
from pipeline_lib.params.base import read, validate
from pipeline_lib.params.prompts import Recipe
from pipeline_lib.prompts.groups import class_groups, groups_by_similarity
from pipeline_lib.prompts.similarity import text_similarities
from pipeline_lib.prompts.strategies import Surroundings, fuse, write_prompts
from pipeline_lib.prompts.vocabulary import ClassName, read_vocabulary
from tests.conftest import ROOT, edit_params

FASHION = ROOT / "data/fashion/classes.csv"


@settings(max_examples=50, deadline=None)
@given(st.integers(2, 12), st.integers(1, 4), st.integers(1, 200), st.integers(0, 3))
def test_groups_are_balanced_and_do_not_repeat(classes: int, size: int, count: int, seed: int) -> None:
    size = min(size, classes)
    groups = list(itertools.islice(class_groups(classes, size, random.Random(seed)), count))
    appeared = Counter(itertools.chain.from_iterable(groups))
    assert max(appeared.values()) - min(appeared[c] for c in range(classes)) <= 2
    assert all(len(set(group)) == size for group in groups)
    cycle = math.comb(classes, size)
    for start in range(0, count, cycle):
        one_cycle = groups[start : start + cycle]
        assert len({frozenset(group) for group in one_cycle}) == len(one_cycle)


@pytest.mark.parametrize("name", ["single", "mixup"])
def test_default_recipes(name: str) -> None:
    recipe = read(Recipe, f"prompts.{name}", ROOT / "params.yaml")
    surroundings = Surroundings(read_vocabulary(FASHION), ROOT / "data/fashion/generator")
    rows = list(write_prompts(name, recipe, surroundings))
    assert len({row["key"] for row in rows}) == len(rows) == 1024
    appeared = Counter(c for row in rows for c in row["classes"])
    assert len(appeared) == 10
    assert max(appeared.values()) - min(appeared.values()) <= 1
    longer = list(write_prompts(name, recipe.model_copy(update={"count": 2000}), surroundings))
    assert longer[:1024] == rows, "a longer recipe starts with the shorter one"


def test_fused_names() -> None:
    sneaker, boot, bag = (
        ClassName("sneaker", "a low shoe"),
        ClassName("ankle boot", "a high shoe"),
        ClassName("bag", ""),
    )
    assert fuse([sneaker], False) == "a sneaker"
    assert fuse([sneaker, boot], False) == "a sneaker and an ankle boot"
    assert fuse([sneaker, boot, bag], False) == "a sneaker, an ankle boot and a bag"
    assert fuse([sneaker, boot], True) == "a sneaker, a low shoe and an ankle boot, a high shoe"


def test_imagenet_names_come_from_timm() -> None:
    classes = read_vocabulary(ROOT / "data/imagenet/classes.csv")
    assert len(classes) == 1000
    assert classes[1].name == "goldfish"
    assert "fish" in classes[1].definition
    assert classes[134].name == classes[517].name == "crane", "a bird and a machine: polysemy"


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("index,name,definition\n0,bag,x\n1,bag,y\n", "class 1 is called 'bag' like class 0"),
        ("index,name,definition\n0,bag,x\n2,coat,y\n", "expected class index 1, found '2'"),
        ("index,name,definition\n0,bag,x\n0,coat,y\n", "expected class index 1, found '0'"),
        ("index,name,definition\n0,,x\n", "class 0 has no name"),
        ("index,name,definition\n", "no classes"),
        ("name\nbag\n", "expected the columns"),
        ("index,synset\n0,n99999999\n", "timm knows no synset 'n99999999'"),
    ],
)
def test_class_lists_that_are_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "classes.csv"
    path.write_text(content)
    with pytest.raises(InputError, match=said):
        read_vocabulary(path)


def test_more_classes_than_there_are_and_another_number_of_classes(tmp_path: Path) -> None:
    classes = tmp_path / "classes.csv"
    classes.write_text("index,name,definition\n0,bag,x\n1,coat,y\n")
    three = {"strategy": "mixup", "reads": str(classes), "count": 4, "classes_per_prompt": 3}
    recipe = validate(Recipe, three, "prompts.mixup")
    with pytest.raises(InputError, match="there are 2 classes"):
        list(write_prompts("mixup", recipe, Surroundings(read_vocabulary(classes), tmp_path)))
    with pytest.raises(InputError, match="of 2 classes, `task.classes` a list of 10"):
        list(write_prompts("mixup", recipe, Surroundings(read_vocabulary(FASHION), tmp_path)))


def test_pairs_by_similarity_meet_their_neighbours_and_stay_balanced() -> None:
    positions = np.arange(10)  # classes on a line: the nearer, the more alike
    similarities = -np.abs(positions[:, None] - positions).astype(float)
    for near, distances in ((True, {1, 2, 3}), (False, set(range(4, 10)))):
        groups = list(itertools.islice(groups_by_similarity(similarities, 2, near, random.Random(0)), 500))
        assert {abs(a - b) for a, b in groups} <= distances
        appeared = Counter(itertools.chain.from_iterable(groups))
        assert min(appeared.values()) >= 60, "of 100 appearances a class"
        assert list(itertools.islice(groups_by_similarity(similarities, 2, near, random.Random(0)), 50)) == groups[:50]


def test_the_generators_text_encoder_knows_what_is_alike() -> None:
    names = [entry.name for entry in read_vocabulary(FASHION)]
    texts = [f"a photo of a {name}" for name in names]
    similarities = text_similarities(ROOT / "data/fashion/generator", texts)
    assert np.allclose(np.diag(similarities), 1) and np.allclose(similarities, similarities.T)
    similar = {name: similarities[names.index("shirt"), i] for i, name in enumerate(names)}
    assert similar["t-shirt"] > similar["sneaker"]


def test_recipes_of_pairs(workspace: Path, stage: Callable[..., int]) -> None:
    recipe = {"strategy": "mixup", "reads": "data/fashion/classes.csv", "count": 24}
    more = {f"prompts.{pairs}": {**recipe, "pairs": pairs} for pairs in ("similar", "dissimilar")}
    generator = str(ROOT / "data/fashion/generator")
    edit_params(workspace / "params.yaml", **{"task.generator": generator, **more})
    texts = {}
    for name in ("similar", "dissimilar"):
        assert stage("prompts", name) == 0
        texts[name] = {row["prompt"] for row in read_lines(workspace / f"data/prompts/{name}.jsonl")}
    assert not texts["similar"] & texts["dissimilar"]
    shutil.rmtree(workspace / "world/generator/text_encoder")
    edit_params(workspace / "params.yaml", **{"task.generator": "world/generator"})
    assert stage("prompts", "similar") == 2
    assert stage("prompts", "mixup") == 0, "uniform pairs need no text encoder"
