"""Folders that arrive whole, or leave nothing."""

from pathlib import Path

import pytest

from pipeline_lib.artifacts.files import atomic_directory
from pipeline_lib.errors import InputError


def write(destination: Path) -> None:
    with atomic_directory(destination) as folder:
        (folder / "new").write_text("new")


def test_a_folder_is_replaced(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out/old").write_text("old")
    write(tmp_path / "out")
    assert [path.name for path in tmp_path.rglob("*")] == ["out", "new"]


@pytest.mark.parametrize("kind", ["link to nothing", "link to a folder", "link to itself", "file"])
def test_what_is_no_folder_is_left_as_it_is(kind: str, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    out = tmp_path / "out"
    if kind == "file":
        out.write_text("mine")
    else:
        out.symlink_to({"link to nothing": "absent", "link to a folder": "folder", "link to itself": "out"}[kind])
    before = sorted(tmp_path.iterdir())
    with pytest.raises(InputError, match=f"out: expected a folder or nothing, found a {kind.split()[0]}"):
        write(out)
    assert sorted(tmp_path.iterdir()) == before
    assert not list((tmp_path / "folder").iterdir())
