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
from pipeline_lib.prompts.strategies import Surroundings, draw_weights, fuse, write_prompts
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
        ("index,name,definition\n0,bag,x\n2,coat,y\n", "expected class index 1, found '2'"),
        ("index,name,definition\n0,bag,x\n0,coat,y\n", "expected class index 1, found '0'"),
        ("index,name,definition\n0,,x\n", "class 0 has no name"),
        ("index,name,definition\n", "no classes"),
        ("name\nbag\n", "expected the columns"),
        ("index,synset\n0,n99999999\n", "timm knows no synset 'n99999999'"),
        ("", "no classes"),
        ("index,name\n0,bag\n1,dress, long\n", r"classes.csv:3: another number of fields than columns: expected 2"),
        ("index,name,definition\n0,bag\n", "expected 3 .index,name,definition., found 2"),
        ("index,name,colour\n0,bag,red\n", "expected the columns index,name or .* found index,name,colour"),
        ("index;name\n0;bag\n", "expected the columns index,name or .* found index;name"),
        ("index,name,name\n0,bag,bag\n", "expected the columns"),
        ("index,name\n0,bag\0\n", r"classes.csv:2: found the control character U\+0000"),
        ('index,name\n0,"a\nbag"\n', r"classes.csv:3: a line break or tab in the name"),
        ("index,name\n0,a\tbag\n", "a line break or tab in the name"),
        ("index,name\n0,a\u2028bag\n", r"control character U\+2028"),
        ('index,name\n0,"bag\n1,coat\n', "not CSV: unexpected end of data"),
        ("index,name\n0," + "x" * 200_000 + "\n", "not CSV: field larger"),
        ("index,synset,name\n0,n1,bag\n1,n1,coat\n", "class 1 has the synset n1 of class 0"),
    ],
)
def test_class_lists_that_are_refused(tmp_path: Path, content: str, said: str) -> None:
    path = tmp_path / "classes.csv"
    path.write_text(content, newline="")
    with pytest.raises(InputError, match=said) as found:
        read_vocabulary(path)
    assert "\n" not in str(found.value)


TWO = [ClassName("café", "a place, with tables"), ClassName("bag", "")]


@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_class_lists_as_editors_save_them(tmp_path: Path, encoding: str, newline: str) -> None:
    path = tmp_path / "classes.csv"
    for text in (
        'index,name,definition\n0,café,"a place, with tables"\n1,bag,\n',
        'name, definition, index\ncafé , "a place, with tables",0\n bag,, 1\n\n\n',
    ):
        path.write_bytes(text.replace("\n", newline).encode(encoding))
        assert read_vocabulary(path) == TWO
    path.write_bytes(b"\xfe\xff" + "index,name\n0,bag".encode("utf-16-be"))
    assert read_vocabulary(path) == [ClassName("bag", "")]


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("index,name\n0,bag\n1,café\n".encode("latin-1"), r"expected text in UTF-8, .*0xe9, line 3.; save"),
        (
            "index,name\n0,bag\n".encode("utf-16-le"),
            r"classes.csv:1: found the control character U\+0000; save",
        ),
        ("index,name\n0,bag\n".encode("utf-16")[:-1], "found UTF-16 with other bytes"),
    ],
)
def test_other_encodings_are_refused(tmp_path: Path, content: bytes, said: str) -> None:
    (tmp_path / "classes.csv").write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_vocabulary(tmp_path / "classes.csv")


def test_class_lists_that_are_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder; expected a class list"):
        read_vocabulary(tmp_path)
    with pytest.raises(InputError, match="absent.csv: not found; expected a class list, .* `task.classes`"):
        read_vocabulary(tmp_path / "absent.csv")


def test_a_list_may_have_names_and_synsets(tmp_path: Path) -> None:
    path = tmp_path / "classes.csv"
    path.write_text("synset,index,name\nn02012849,0,crane bird\n,1,crane\n")
    assert read_vocabulary(path) == [ClassName("crane bird", "", "n02012849"), ClassName("crane", "")]
    path.write_text("index,synset,definition\n0,n01443537,orange and small\n")
    assert read_vocabulary(path) == [ClassName("goldfish", "orange and small", "n01443537")]


def test_repeated_names_are_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "classes.csv"
    path.write_text("index,name\n0,crane\n1,bag\n2,crane\n3,crane\n")
    assert [entry.name for entry in read_vocabulary(path)] == ["crane", "bag", "crane", "crane"]
    assert capsys.readouterr().err.strip().endswith("by their indices: crane (0, 2, 3)")
    read_vocabulary(path)
    assert not capsys.readouterr().err, "once"
    read_vocabulary(FASHION)
    assert not capsys.readouterr().err


@pytest.mark.parametrize(
    ("article", "names"),
    [
        (
            "a",
            "sneaker, unicycle, unicorn, union, university, European fire salamander, ewe, ukulele, utensil",
        ),
        ("a", "one-armed bandit, UFO, USB stick, UV lamp, 3D printer, T-shirt, U-boat, 1-seater, NASA rocket, hotel"),
        ("a", "Lhasa, Yorkshire terrier, yurt, rhino, llama, sphinx, xylophone, mnemonic, flag, (new) bag, 鶴, €"),
        ("an", "ankle boot, hourglass, heirloom, honest man, umbrella, upright, unidentified object, usher, udder"),
        ("an", "X-ray, MRI scanner, SUV, LED lamp, F1 car, HDMI cable, 8-track, 11-seater, 18-wheeler, iPod, éclair"),
    ],
)
def test_articles(article: str, names: str) -> None:
    for name in names.split(", "):
        assert ClassName(name, "").with_article() == f"{article} {name}"


def test_articles_of_imagenet() -> None:
    """All but these four have `an` before a vowel's letter, and before no other."""
    classes = read_vocabulary(ROOT / "data/imagenet/classes.csv")
    by_letter = {entry.name: f"{'an' if entry.name[0] in 'aeiouAEIOU' else 'a'} {entry.name}" for entry in classes}
    others = {entry.with_article() for entry in classes} - set(by_letter.values())
    assert others == {"a European fire salamander", "a European gallinule", "an hourglass", "a unicycle"}


def test_more_classes_than_there_are_and_another_number_of_classes(tmp_path: Path) -> None:
    classes = tmp_path / "classes.csv"
    classes.write_text("index,name,definition\n0,bag,x\n1,coat,y\n")
    three = {"strategy": "mixup", "reads": str(classes), "count": 4, "classes_per_prompt": 3}
    recipe = validate(Recipe, three, "prompts.mixup")
    with pytest.raises(InputError, match="there are 2 classes"):
        list(write_prompts("mixup", recipe, Surroundings(read_vocabulary(classes), tmp_path)))
    classes.write_text("index,name\n0,bag\n")
    with pytest.raises(InputError, match="`prompts.mixup.classes_per_prompt` is 3, but there are 1 classes in"):
        list(write_prompts("mixup", recipe, Surroundings(read_vocabulary(classes), tmp_path)))
    classes.write_text("index,name\n0,bag\n1,coat\n")
    with pytest.raises(InputError, match="of 2 classes, `task.classes` a list of 10"):
        list(write_prompts("mixup", recipe, Surroundings(read_vocabulary(FASHION), tmp_path)))


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"templates": ["a {photo} of {}"]}, "`prompts.x.templates.0` is 'a {photo} of {}'; .*expected exactly one {}"),
        ({"templates": ["a photo of {}", "{} {0}"]}, "`prompts.x.templates.1` is '{} .0}'"),
        *(
            ({"templates": [bad]}, "expected exactly one {}")
            for bad in ("{", "{}}", "{{}}", "{!r}", "{:>10}", "{0}", "{} {}", "")
        ),
        ({"templates": ["a photo\nof {}"]}, "expected one line"),
        ({"templates": []}, "at least 1 item"),
        ({"negative_prompt": "text\0"}, "`prompts.x.negative_prompt` .*expected one line"),
        ({"reads": "classes\0.csv"}, "`prompts.x.reads` .*expected one line"),
        ({"count": 10**12}, "`prompts.x.count` .*less than or equal to 1000000"),
        ({"count": 0}, "`prompts.x.count` .*greater than or equal to 1"),
        *(({"concentration": bad}, "`prompts.x.concentration`") for bad in (0.0, -1.0, 1e300, math.inf, math.nan)),
        ({"too_long": "ignore"}, "`prompts.x.too_long` is 'ignore'; .*'error' or 'cut'"),
    ],
)
def test_recipes_that_are_refused(values: dict, said: str) -> None:
    with pytest.raises(InputError, match=said) as found:
        validate(Recipe, {"strategy": "mixup", "reads": str(FASHION), "count": 4, **values}, "prompts.x")
    assert "\n" not in str(found.value)


def test_templates_are_rendered_by_replacement(tmp_path: Path) -> None:
    classes = tmp_path / "classes.csv"
    classes.write_text("index,name\n0,{bag}\n1,%d {0}\n")
    recipe = {"strategy": "single", "reads": str(classes), "count": 2, "templates": ["100% \\1 $x {}!"]}
    made = write_prompts("x", validate(Recipe, recipe, "prompts.x"), Surroundings(read_vocabulary(classes), tmp_path))
    assert {row["prompt"] for row in made} == {"100% \\1 $x a {bag}!", "100% \\1 $x a %d {0}!"}


@pytest.mark.parametrize("concentration", [5e-324, 1e-9, 0.001, 0.02, 0.5, 1.0, 30.0, 1e6])
def test_weights_are_a_distribution(concentration: float) -> None:
    drawn = np.array([draw_weights(3, concentration, seed) for seed in range(600)])
    assert np.isfinite(drawn).all() and (drawn >= 0).all()
    assert np.allclose(drawn.sum(1), 1)
    assert np.allclose(drawn.mean(0), 1 / 3, atol=0.1), "no class is preferred"
    if concentration < 0.01:
        assert np.median(drawn.max(1)) > 0.999
    if concentration == 1e6:
        assert np.allclose(drawn, 1 / 3, atol=0.01)


def test_definitions_that_are_not_there(tmp_path: Path) -> None:
    classes = tmp_path / "classes.csv"
    classes.write_text("index,name\n0,bag\n1,coat\n")
    recipe = {"strategy": "single", "reads": str(classes), "count": 2, "definitions": True}
    with pytest.raises(InputError, match="`prompts.x.definitions` is true, but .* has none; add the column"):
        list(
            write_prompts("x", validate(Recipe, recipe, "prompts.x"), Surroundings(read_vocabulary(classes), tmp_path))
        )


def test_groups_of_many_classes_are_quick() -> None:
    """All 3003 groups of 5 of 15, every one once, and some of the 10^19 of 8 of 1000: a search would not end."""
    groups = list(itertools.islice(class_groups(15, 5, random.Random(0)), math.comb(15, 5)))
    assert len(set(map(frozenset, groups))) == math.comb(15, 5)
    assert len(list(itertools.islice(class_groups(1000, 8, random.Random(0)), 500))) == 500


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
    encoder = workspace / "world/generator/text_encoder"
    edit_params(workspace / "params.yaml", **{"task.generator": "world/generator"})
    (encoder / "model.safetensors").write_bytes(b"cut")
    assert stage("prompts", "similar") == 2
    shutil.rmtree(encoder)
    assert stage("prompts", "similar") == 2
    assert stage("prompts", "mixup") == 0, "uniform pairs need no text encoder"
