"""Tars of samples: WebDataset's keys, and no way to read a damaged one."""

import io
import tarfile
from pathlib import Path

import pytest
import webdataset

from pipeline_lib.artifacts.tars import read_tar

FILES = {
    "a/b.c.jpg": b"image",
    "a/b.cls": b"1",
    "plain.PNG": b"other",
    "v1.0/x.json": b"{}",  # dots of a folder are no part of the extension
}


def write_tar(path: Path, files: dict[str, bytes], folders: tuple[str, ...] = ()) -> Path:
    with tarfile.open(path, "w") as tar:
        for folder in folders:
            entry = tarfile.TarInfo(folder)
            entry.type = tarfile.DIRTYPE
            tar.addfile(entry)
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return path


def test_keys_are_those_of_webdataset(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", FILES, folders=("a",))
    ours = list(read_tar(path))
    assert ours == [
        ("a/b", {"c.jpg": b"image", "cls": b"1"}),
        ("plain", {"PNG": b"other"}),
        ("v1.0/x", {"json": b"{}"}),
    ]
    theirs = webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False)
    assert [sample["__key__"] for sample in theirs] == [key for key, _ in ours]


def test_the_least_padding_that_a_tar_may_have(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", FILES)
    path.write_bytes(path.read_bytes().rstrip(b"\0"))
    length = -(-path.stat().st_size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    path.write_bytes(path.read_bytes().ljust(length + 2 * tarfile.BLOCKSIZE, b"\0"))
    assert len(list(read_tar(path))) == 3


@pytest.mark.parametrize("blocks", [0, 1, 2, 5, 8])
def test_cut_between_two_blocks(tmp_path: Path, blocks: int) -> None:
    path = write_tar(tmp_path / "0.tar", FILES)
    path.write_bytes(path.read_bytes()[: blocks * tarfile.BLOCKSIZE])
    with pytest.raises(tarfile.ReadError):
        list(read_tar(path))


@pytest.mark.parametrize("name", ["nothing", "a/nothing", ".hidden.png", "a/.png"])
def test_what_is_no_file_of_a_sample(tmp_path: Path, name: str) -> None:
    with pytest.raises(tarfile.ReadError, match=f"unexpected member {name}"):
        list(read_tar(write_tar(tmp_path / "0.tar", {name: b""})))


def test_a_file_that_comes_twice(tmp_path: Path) -> None:
    path = tmp_path / "0.tar"
    with tarfile.open(path, "w") as tar:
        for _ in range(2):
            tar.addfile(tarfile.TarInfo("a.png"))
    with pytest.raises(tarfile.ReadError, match=r"a\.png comes twice"):
        list(read_tar(path))


def test_tars_that_were_joined(tmp_path: Path) -> None:
    path, other = (write_tar(tmp_path / name, FILES) for name in ("0.tar", "1.tar"))
    path.write_bytes(path.read_bytes() + other.read_bytes())
    with pytest.raises(tarfile.ReadError, match="more follows the end"):
        list(read_tar(path))


def test_headers_whose_numbers_are_none(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "0.tar", FILES)
    header = bytearray(path.read_bytes())
    header[124:136] = b"\x80" + b"\x7f" * 11
    header[148:156] = b" " * 8
    header[148:156] = f"{sum(header[:512]):06o}\0 ".encode()
    path.write_bytes(header)
    with pytest.raises(tarfile.TarError):
        list(read_tar(path))
    for pax in ({"size": "9" * 23}, {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.size": "x"}):
        with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
            entry = tarfile.TarInfo("a.cls")
            entry.pax_headers = pax
            tar.addfile(entry)
        with pytest.raises(tarfile.TarError):
            list(read_tar(path))
