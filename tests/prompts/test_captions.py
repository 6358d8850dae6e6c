"""Prompts from a file that somebody wrote."""

from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline_lib.artifacts.records import read_lines
from pipeline_lib.errors import InputError
from pipeline_lib.prompts.captions import Caption, read_captions
from pipeline_lib.prompts.vocabulary import ClassName, read_vocabulary
from tests.conftest import ROOT, edit_params

CLASSES = read_vocabulary(ROOT / "data/fashion/classes.csv")
SNEAKER, BAG = ([entry.name for entry in CLASSES].index(name) for name in ("sneaker", "bag"))


def test_a_text_file_has_a_prompt_a_line(tmp_path: Path) -> None:
    path = tmp_path / "captions.txt"
    path.write_text("\ufeffa red shoe, worn\n  a bag; on a table \n", encoding="utf-8")
    assert read_captions(path, CLASSES) == [Caption("a red shoe, worn", []), Caption("a bag; on a table", [])]


def test_a_csv_file_may_say_which_classes_a_prompt_shows(tmp_path: Path) -> None:
    path = tmp_path / "captions.CSV"
    path.write_text(f'prompt,classes\n"a shoe, worn",sneaker\nboth,sneaker; {BAG}\nneither,\n')
    expected = [Caption("a shoe, worn", [SNEAKER]), Caption("both", [SNEAKER, BAG]), Caption("neither", [])]
    assert read_captions(path, CLASSES) == expected
    path.write_text("prompt\na shoe\n")
    assert read_captions(path, CLASSES) == [Caption("a shoe", [])]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("captions.txt", b"", "no captions"),
        ("captions.txt", b"a shoe\n\na bag\n", r"captions\.txt:2: an empty prompt"),
        ("captions.txt", b"a shoe\n\xff\n", "expected text in UTF-8, found other bytes at 7"),
        ("captions.csv", b"text,classes\na,\n", "expected the columns prompt or prompt,classes, found text,classes"),
        ("captions.csv", b"prompt,classes\na shoe,sneaker\n,bag\n", r"captions\.csv:3: an empty prompt"),
        ("captions.csv", b"prompt,classes\na shoe,snaeker\n", r"captions\.csv:2: no class 'snaeker'"),
        ("captions.csv", b"prompt,classes\na shoe,10\n", r"captions\.csv:2: no class '10'"),
        ("captions.csv", b"prompt,classes\na shoe, worn,sneaker\n", r"captions\.csv:2: another number of fields"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_captions(tmp_path / name, CLASSES)


def test_a_name_of_two_classes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_text("prompt,classes\na crane,crane\n")
    with pytest.raises(InputError, match="'crane' is the name of the classes 0, 1; write an index"):
        read_captions(path, [ClassName("crane", "a bird"), ClassName("crane", "a machine")])
    path.write_text("prompt,classes\na crane,1\n")
    assert read_captions(path, [ClassName("crane", ""), ClassName("crane", "")]) == [Caption("a crane", [1])]


def test_captions_are_used_in_turn(workspace: Path, stage: Callable[..., int]) -> None:
    (workspace / "mine.csv").write_text("prompt,classes\na shoe,sneaker\na shoe and a bag,sneaker;bag\nnothing,\n")
    recipe = {"strategy": "file", "reads": "mine.csv", "count": 5, "negative_prompt": "blurred"}
    edit_params(workspace / "params.yaml", **{"prompts.mine": recipe})
    assert stage("prompts", "mine") == 0
    rows = read_lines(workspace / "data/prompts/mine.jsonl")
    assert [row["key"] for row in rows] == [f"mine-{number:06d}" for number in range(5)]
    assert [row["prompt"] for row in rows] == ["a shoe", "a shoe and a bag", "nothing", "a shoe", "a shoe and a bag"]
    assert [row["classes"] for row in rows[:3]] == [[SNEAKER], [SNEAKER, BAG], []]
    assert rows[1]["weights"] == [0.5, 0.5] and {row["negative_prompt"] for row in rows} == {"blurred"}
    assert stage("synthesize", "mine") == 0
    assert stage("prompts", "absent") == 2
