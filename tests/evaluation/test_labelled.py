"""Labelled images in every form: the right label, or an error that lists what is wrong."""

import os
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.errors import InputError
from pipeline_lib.evaluation.labelled import labelled_set, sample
from pipeline_lib.prompts.vocabulary import ClassName
from tests.artifacts.test_tars import write_tar
from tests.conftest import write_idx
from tests.pictures.writing import png, put, shows

CLASSES = [ClassName(f"thing {i}", "", f"n{i:08d}") for i in range(11)] + [
    ClassName("crane", "a bird", "n00000011"),
    ClassName("crane", "a machine", "n00000012"),
    ClassName("Ankle boot", ""),
]


def labels(folder: Path) -> dict[str, int]:
    images = labelled_set(folder, CLASSES).images
    assert all(shows(image.open(), image.label) for image in images), "each picture has the colour of its class"
    return {image.key: image.label for image in images}


@pytest.mark.parametrize("name", ["{}", "{:03d}", "thing {}", "thing_{}", "Thing {}", "n{:08d}"])
def test_folders_by_index_name_or_synset(tmp_path: Path, name: str) -> None:
    present = [10, 2, 7]  # some are missing, and 10 comes before 2 by name
    for index in present:
        put(tmp_path / name.format(index) / "x.png", index)
    assert sorted(labels(tmp_path).values()) == sorted(present)
    assert labelled_set(tmp_path, CLASSES).summary == "3 of 14 classes, 3 images"


def test_what_is_skipped_is_counted(tmp_path: Path) -> None:
    for suffix in ("png", "PNG", "webp", "bmp", "tiff", "gif"):
        put(tmp_path / "3" / f"{suffix}.{suffix}", 3)
    put(tmp_path / "3/below/deeper.png", 3)
    put(tmp_path / "3/.hidden.png", 1)
    put(tmp_path / ".ipynb_checkpoints/x.png", 1)
    (tmp_path / "3/__pycache__").mkdir()
    (tmp_path / "4").mkdir()
    for name in ("a.txt", "3/b.txt", "3/Thumbs.db", "3/._x.png", "3/README"):
        (tmp_path / name).write_bytes(b"x")
    assert len(labels(tmp_path)) == 7
    found = labelled_set(tmp_path, CLASSES).summary
    assert found == (
        "1 of 14 classes, 7 images; 1 folders without pictures; skipped: 1 .db, 2 .txt, 4 hidden, 1 without a suffix"
    )


@pytest.mark.parametrize(
    ("folder", "said"),
    [
        ("images", "'images' (no class)"),
        ("14", "'14' (no class)"),
        ("-1", "'-1' (no class)"),
        ("crane", "'crane' (any of the classes 11, 12)"),
        ("n0001", "'n0001' (no class)"),
        ("1.0", "'1.0' (no class)"),
        ("9" * 30, "(no class)"),
    ],
)
def test_folders_of_no_class_or_of_several(tmp_path: Path, folder: str, said: str) -> None:
    put(tmp_path / "3/x.png", 3)
    put(tmp_path / folder / "x.png", 3)
    with pytest.raises(InputError) as error:
        labelled_set(tmp_path, CLASSES)
    assert said in str(error.value)
    assert "expected labels that are an index from 0 to 13, a name or a synset" in str(error.value)


def test_an_index_that_is_the_name_of_another_class(tmp_path: Path) -> None:
    put(tmp_path / "1/x.png", 0)
    assert labelled_set(tmp_path, [ClassName("0", ""), ClassName("1", "")]).images[0].label == 1
    with pytest.raises(InputError, match="any of the classes 0, 1"):
        labelled_set(tmp_path, [ClassName("1", ""), ClassName("2", "")])


def test_pictures_outside_of_the_classes(tmp_path: Path) -> None:
    put(tmp_path / "3/x.png", 3)
    put(tmp_path / "loose.png", 3)
    with pytest.raises(InputError, match=r"loose\.png: without a label; expected a folder a class"):
        labelled_set(tmp_path, CLASSES)


def test_links_and_names(tmp_path: Path) -> None:
    elsewhere = put(tmp_path / "elsewhere/x.png", 3)
    folder = tmp_path / "labelled"
    (folder / "3").mkdir(parents=True)
    (folder / "3/link.png").symlink_to(elsewhere)
    assert labels(folder) == {"3/link.png": 3}
    (folder / "4").symlink_to(elsewhere.parent)
    with pytest.raises(InputError, match="4: a link to a folder"):
        labelled_set(folder, CLASSES)
    (folder / "4").unlink()
    os.rename(os.fsencode(folder / "3/link.png"), os.fsencode(folder / "3") + b"/\xe9t\xe9.png")
    with pytest.raises(InputError, match=r"the name b'\\xe9t\\xe9.png' is not UTF-8"):
        labelled_set(folder, CLASSES)


def test_nothing_to_see(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="found nothing"):
        labelled_set(tmp_path / "absent", CLASSES)
    (tmp_path / "3").mkdir()
    (tmp_path / "3/a.txt").write_text("x")
    with pytest.raises(InputError, match=r"no labelled images; .*1 folders without pictures; skipped: 1 \.txt"):
        labelled_set(tmp_path, CLASSES)
    with pytest.raises(InputError, match="found a file"):
        labelled_set(tmp_path / "3/a.txt", CLASSES)


def test_damaged_picture(tmp_path: Path) -> None:
    put(tmp_path / "3/x.png", 3).write_bytes(png(3)[:50])
    (image,) = labelled_set(tmp_path, CLASSES).images
    with pytest.raises(InputError, match=r"3/x\.png: a damaged picture"):
        image.open()


def test_table(tmp_path: Path) -> None:
    put(tmp_path / "a.png", 3)
    put(tmp_path / "b/c, d.png", 11)
    put(tmp_path / "b/unnamed.png", 1)
    table = tmp_path / "labels.csv"
    table.write_bytes(b'\xef\xbb\xbffile,class\r\na.png,thing 3\r\n"b/c, d.png",n00000011\r\n\r\n')
    assert labels(tmp_path) == {"a.png": 3, "b/c, d.png": 11}
    assert labelled_set(tmp_path, CLASSES).summary == ("2 of 14 classes, 2 images; 1 pictures are not in labels.csv")
    for text, said in (
        ("", "no labelled images"),
        ("name,class\n", "expected the columns file,class, found name,class"),
        ("file,class\nx.png,3\n", r"labels\.csv:2: expected a picture below .*, found 'x\.png'"),
        ("file,class\na.png,3\na.png,4\n", "labels.csv:3: 'a.png' has a label already"),
        ("file,class\na.png,crane\n", r"'crane' \(any of the classes 11, 12\)"),
        ("file,class\na.png,\n", r"'' \(no class\)"),
        ("file,class\na,b.png,3\n", r"labels\.csv:2: another number of fields"),
        ("file,class\n", "no labelled images"),
    ):
        table.write_text(text)
        with pytest.raises(InputError, match=said):
            labelled_set(tmp_path, CLASSES)
    table.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match="expected text in UTF-8"):
        labelled_set(tmp_path, CLASSES)


@pytest.mark.parametrize(
    "extensions",
    [("cls", "png"), ("png", "cls"), ("cls", "json", "png"), ("png", "json", "cls"), ("txt", "x.PNG", "y.CLS")],
)
def test_tars_in_any_order(tmp_path: Path, extensions: tuple[str, ...]) -> None:
    contents = {"cls": b"3\n", "png": png(3), "json": b'{"label": 5}', "txt": b"a caption"}
    files = {f"val.2012/a.{extension}": contents[extension.lower().split(".")[-1]] for extension in extensions}
    write_tar(tmp_path / "0.tar", {**files, "._a.png": b"\0"}, folders=("./", "val.2012"))
    assert labels(tmp_path) == {"val.2012/a": 3}
    assert labelled_set(tmp_path, CLASSES).summary == "1 of 14 classes, 1 images; skipped: 1 hidden"


@pytest.mark.parametrize("label", ["thing 3", "n00000003", "3", " 3\r\n"])
def test_labels_in_tars(tmp_path: Path, label: str) -> None:
    write_tar(tmp_path / "0.tar", {"a.png": png(3), "a.cls": label.encode()})
    assert labels(tmp_path) == {"a": 3}


@pytest.mark.parametrize(
    ("files", "said"),
    [
        ({"a.png": png(1)}, "a.png: without a label; expected a .cls"),
        ({"a.png": png(1), "b.cls": b"1"}, "sample b has cls; expected one picture"),
        ({"a.cls": b"1"}, "sample a has cls; expected one picture"),
        ({"a.x.png": png(1), "a.y.png": png(1), "a.cls": b"1"}, "sample a has x.png, y.png, cls; expected one picture"),
        ({"a.png": png(1), "a.cls": b"-1"}, "'-1' (no class)"),
        ({"a.png": png(1), "a.cls": b"14"}, "'14' (no class)"),
        ({"a.png": png(1), "a.cls": b"\xff"}, "its .cls is not UTF-8"),
        ({"a.png": png(1), "a.cls": b""}, "without a label"),
        ({"a": png(1)}, "unexpected member a, expected files KEY.EXTENSION; pack the tar anew"),
        ({"a\rb.png": png(1)}, "whose name has a control character"),
        ({"x\udce9.png": png(1)}, "whose name is not UTF-8"),
    ],
)
def test_samples_that_are_wrong(tmp_path: Path, files: dict[str, bytes], said: str) -> None:
    write_tar(tmp_path / "0.tar", files)
    with pytest.raises(InputError) as error:
        labelled_set(tmp_path, CLASSES)
    assert said in str(error.value)
    assert "delete" not in str(error.value)


def test_tars_that_are_wrong(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", {"a.png": png(1), "a.cls": b"1", "b.png": png(2), "b.cls": b"2"})
    whole = path.read_bytes()
    for length in (4096, 3000, 1024, 700, 0):
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"0\.tar: a truncated or damaged tar"):
            labelled_set(tmp_path, CLASSES)
    path.write_bytes(whole)
    put(tmp_path / "3/x.png", 3)
    with pytest.raises(InputError, match=r"expected tars or pictures, found 0\.tar and .*3/x\.png"):
        labelled_set(tmp_path, CLASSES)
    (tmp_path / "3/x.png").unlink()
    write_tar(tmp_path / "1.tar", {"a.png": png(1), "a.cls": b"1"})
    with pytest.raises(InputError, match="the key a stands for 2 samples"):
        labelled_set(tmp_path, CLASSES)
    (tmp_path / "1.tar").unlink()
    for other in (b"PK\x03\x04" + b"x" * 2000, b"\x1f\x8b" + b"x" * 2000, bytes(png(3)) + bytes(2000)):
        path.write_bytes(other)
        with pytest.raises(InputError, match=r"0\.tar: expected a tar that is not compressed, found another file"):
            labelled_set(tmp_path, CLASSES)
    path.write_bytes(whole)
    path.rename(tmp_path / "0.tar.gz")
    with pytest.raises(InputError, match=r"not compressed, found 0\.tar\.gz"):
        labelled_set(tmp_path, CLASSES)


def test_idx_pair(tmp_path: Path) -> None:
    images, numbers = tmp_path / "images-idx3-ubyte.gz", tmp_path / "labels-idx1-ubyte.gz"
    write_idx(images, np.zeros((3, 28, 28)))
    write_idx(numbers, np.array([3, 0, 13]))
    found = labelled_set(tmp_path, CLASSES)
    assert [image.label for image in found.images] == [3, 0, 13]
    assert found.images[0].open().size == (32, 32)
    for labels_, said in (
        (np.array([3, 0, 14]), "label 14, expected"),
        (np.array([3, 0]), r"\(3, 28, 28\) and \(2,\)"),
    ):
        write_idx(numbers, labels_)
        with pytest.raises(InputError, match=said):
            labelled_set(tmp_path, CLASSES)


def test_samples_are_drawn_by_key(tmp_path: Path) -> None:
    for label in range(10):
        for number in range(20):
            put(tmp_path / str(label) / f"{number}.png", label)
    images = labelled_set(tmp_path, CLASSES).images
    assert [image.label for image in images[:20]] == [0] * 20, "they are sorted by class"
    few = [images[position] for position in sample(images, 30)]
    assert len({image.label for image in few}) >= 8
    assert [images[position] for position in sample(images, 10)] == few[:10], "a smaller sample is the beginning"
    half = labelled_set(tmp_path, CLASSES).chosen(0.5)
    assert 80 < len(half) < 120
    assert {image.key for image in few} <= {image.key for image in half}
    assert sample(images, 1000) == sample(images, 200)


def test_a_hidden_tar_hides_nothing(tmp_path: Path) -> None:
    put(tmp_path / "3/x.png", 3)
    (tmp_path / "._x.tar").write_bytes(b"x")
    assert labelled_set(tmp_path, CLASSES).summary == "1 of 14 classes, 1 images; skipped: 1 hidden"


def test_tars_of_any_case(tmp_path: Path) -> None:
    write_tar(tmp_path / "0.TAR", {"a.png": png(3), "a.cls": b"3"})
    write_tar(tmp_path / "1.tar", {"b.png": png(4), "b.cls": b"4"})
    assert labels(tmp_path) == {"a": 3, "b": 4}


def test_what_is_no_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    put(tmp_path / "store/x.png", 3)
    folder = tmp_path / "labelled"
    (folder / "3").mkdir(parents=True)
    picture = folder / "3/x.png"
    os.mkfifo(picture)
    with pytest.raises(InputError, match="expected a picture, found no file"):
        labelled_set(folder, CLASSES)
    picture.unlink()
    picture.symlink_to(tmp_path / "absent")
    with pytest.raises(InputError, match="expected a picture, found a broken link"):
        labelled_set(folder, CLASSES)
    picture.unlink()
    picture.symlink_to(tmp_path / "store/x.png")
    assert labels(folder) == {"3/x.png": 3}, "a picture may lie outside of the project"
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match="outside of .*; put the picture itself here"):
        labelled_set(folder, CLASSES)


def test_an_idx_pair_beside_pictures(tmp_path: Path) -> None:
    write_idx(tmp_path / "images-idx3-ubyte.gz", np.zeros((1, 28, 28)))
    write_idx(tmp_path / "labels-idx1-ubyte.gz", np.array([3]))
    put(tmp_path / "3/x.png", 3)
    with pytest.raises(InputError, match="expected an idx pair or pictures, found both"):
        labelled_set(tmp_path, CLASSES)
