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
        ("captions.csv", b"prompt,classes\na shoe,snaeker\n", r"captions\.csv:2: 'snaeker' is no class"),
        ("captions.csv", b"prompt,classes\na shoe,10\n", r"captions\.csv:2: '10' is no class"),
        ("captions.csv", b"prompt,classes\nshoes,sneaker;sneaker\n", r"captions\.csv:2: a class is named twice"),
        ("captions.csv", b"classes\nsneaker\n", "expected the columns prompt or prompt,classes, found classes"),
        ("captions.csv", b'prompt\n"a\nshoe"\n', r"captions\.csv:3: a line break or tab in the prompt"),
        ("captions.csv", b"prompt,classes\na shoe,%s\n" % (b"9" * 5000), "' is no class"),
        ("captions.txt", b"a shoe\na\x0bbag\n", r"captions\.txt:2: found the control character U\+000B"),
        ("captions.txt", b"a\tshoe\n", r"captions\.txt:1: a tab in the prompt"),
        ("captions.txt", b"\n\n", "no captions"),
        ("captions.csv", b"prompt,classes\na shoe, worn,sneaker\n", r"captions\.csv:2: another number of fields"),
    ],
)
def test_files_that_are_refused(tmp_path: Path, name: str, content: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=said):
        read_captions(tmp_path / name, CLASSES)


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
@pytest.mark.parametrize("newline", ["\n", "\r\n", "\r"])
def test_captions_as_editors_save_them(tmp_path: Path, encoding: str, newline: str) -> None:
    (tmp_path / "captions.txt").write_bytes("a café\na bag\n\n\n".replace("\n", newline).encode(encoding))
    assert [caption.text for caption in read_captions(tmp_path / "captions.txt", CLASSES)] == ["a café", "a bag"]
    (tmp_path / "captions.csv").write_bytes("classes,prompt\nbag,a café\n\n".replace("\n", newline).encode(encoding))
    assert read_captions(tmp_path / "captions.csv", CLASSES) == [Caption("a café", [BAG])]


def test_a_synset_may_stand_for_a_class(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    cranes = [ClassName("crane", "", "n1"), ClassName("crane", "", "n2")]
    path.write_text("prompt,classes\na crane,n2\n")
    assert read_captions(path, cranes) == [Caption("a crane", [1])]


def test_a_name_of_two_classes_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "captions.csv"
    path.write_text("prompt,classes\na crane,crane\n")
    with pytest.raises(InputError, match="'crane' is any of the classes 0, 1; expected an index"):
        read_captions(path, [ClassName("crane", "a bird"), ClassName("crane", "a machine")])
    path.write_text("prompt,classes\na crane,1\n")
    assert read_captions(path, [ClassName("crane", ""), ClassName("crane", "")]) == [Caption("a crane", [1])]


def test_captions_are_drawn_and_used_again(workspace: Path, stage: Callable[..., int]) -> None:
    (workspace / "mine.csv").write_text("prompt,classes\na shoe,sneaker\na shoe and a bag,sneaker;bag\nnothing,\n")
    recipe = {"strategy": "file", "reads": "mine.csv", "count": 5, "negative_prompt": "blurred"}
    edit_params(workspace / "params.yaml", **{"prompts.mine": recipe})
    assert stage("prompts", "mine") == 0
    rows = read_lines(workspace / "data/prompts/mine.jsonl")
    assert [row["key"] for row in rows] == [f"mine-{number:06d}" for number in range(5)]
    prompts = [row["prompt"] for row in rows]
    classes = {"a shoe": [SNEAKER], "a shoe and a bag": [SNEAKER, BAG], "nothing": []}
    assert set(prompts[:3]) == set(classes) and prompts[3:] == prompts[:2]
    assert all(row["classes"] == classes[row["prompt"]] for row in rows)
    weights = {row["prompt"]: row["weights"] for row in rows}
    assert weights["a shoe and a bag"] == [0.5, 0.5] and {row["negative_prompt"] for row in rows} == {"blurred"}
    assert stage("synthesize", "mine") == 0
    assert stage("prompts", "absent") == 2
