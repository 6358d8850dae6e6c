"""The pictures of a folder, and what else lies there."""

import os
from collections import Counter
from pathlib import Path

from pipeline_lib.artifacts.files import check_name
from pipeline_lib.errors import InputError
from pipeline_lib.pictures.decode import picture_suffixes
from pipeline_lib.pictures.picture import Picture, Pictures

HIDDEN = "hidden"  # what begins with a dot; and below, folders that Python or macOS leave behind
LITTER = ("__pycache__", "__MACOSX")


def is_hidden(name: str) -> bool:
    """Whether a file or folder is not for people to see."""
    return name.startswith(".") or name in LITTER


def pictures_of_folder(folder: Path) -> Pictures:
    """All pictures of a folder and of those below it, by their paths; hidden ones and other files are counted.

    Raises:
        InputError: a name is not UTF-8, or a link leads to a folder, whose changes DVC would not see.
    """
    found: list[Path] = []
    skipped: Counter[str] = Counter()
    for at, folders, files in os.walk(folder):
        for name in [*folders, *files]:
            check_name(Path(at) / name)
        hidden = [name for name in folders if is_hidden(name)]
        skipped[HIDDEN] += len(hidden) + sum(map(is_hidden, files))
        folders[:] = [name for name in folders if name not in hidden]
        for name in folders:
            if (link := Path(at) / name).is_symlink():
                raise InputError(
                    f"{link}: a link to a folder, into which DVC does not look; put the folder itself here"
                )
        for name in files:
            suffix = Path(name).suffix.lower()
            if suffix in picture_suffixes() and not is_hidden(name):
                _check_file(Path(at) / name, folder)
                found.append(Path(at) / name)
            elif not is_hidden(name):
                skipped[suffix or "without a suffix"] += 1
    found.sort(key=lambda path: path.relative_to(folder).parts)
    return Pictures([_picture(path, folder) for path in found], +skipped)


def _check_file(path: Path, folder: Path) -> None:
    """A link may lead out of the project, where the picture lies, but not to other inputs or outs of it."""
    if not path.is_file():
        raise InputError(f"{path}: expected a picture, found {'a broken link' if path.is_symlink() else 'no file'}")
    if path.is_symlink():
        target = path.resolve()
        if target.is_relative_to(Path.cwd()) and not target.is_relative_to(folder.resolve()):
            raise InputError(f"{path}: a link to {target}, outside of {folder}; put the picture itself here")


def _picture(path: Path, folder: Path) -> Picture:
    return Picture(path.relative_to(folder).as_posix(), path.as_posix(), path.read_bytes)
