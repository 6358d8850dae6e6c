"""The pictures of WebDataset tars, those of this project's shards among them."""

import hashlib
import json
import tarfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pipeline_lib.artifacts.tars import Member, StrangeMember, index_tar
from pipeline_lib.errors import InputError
from pipeline_lib.pictures.decode import picture_suffixes
from pipeline_lib.pictures.folder import HIDDEN, is_hidden, pictures_of_folder
from pipeline_lib.pictures.picture import Picture, Pictures

CLASS = "cls"  # extension of a sample's class
COMPRESSED = (".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".tar.zst")


def tars_of(folder: Path) -> list[Path]:
    """The tars of a folder, by name."""
    return sorted(file for file in folder.iterdir() if file.suffix.lower() == ".tar" and not is_hidden(file.name))


def pictures_at(path: Path) -> Pictures:
    """The pictures of a tar; of a folder of tars, in the order of their names; or of any other folder.

    Raises:
        InputError: nothing is there, or not what is expected.
    """
    if path.is_file():
        return pictures_of_tars([path])
    if not path.is_dir():
        there = "no file and no folder" if path.exists() else "nothing"
        raise InputError(f"{path}: expected a folder of pictures, or WebDataset tars, found {there}")
    tars = tars_of(path)
    if packed := [file.name for file in sorted(path.iterdir()) if file.name.lower().endswith(COMPRESSED)]:
        raise InputError(f"{path}: expected tars that are not compressed, found {packed[0]}; unpack it (gunzip)")
    others = pictures_of_folder(path)
    if not tars:
        return others
    if others.pictures:
        first = others.pictures[0].name
        raise InputError(f"{path}: expected tars or pictures, found {tars[0].name} and {first}; keep one kind here")
    found = pictures_of_tars(tars)
    others.skipped[".tar"] -= len(tars)
    return Pictures(found.pictures, found.skipped + others.skipped)


def pictures_of_tars(tars: Sequence[Path]) -> Pictures:
    """The samples of tars, each a picture and whatever else shares its key; a `.cls` is its label.

    Raises:
        InputError: a tar is cut or damaged, or a sample has no picture, or several.
    """
    found: list[Picture] = []
    hidden: list[str] = []
    for path in tars:
        try:
            found.extend(_sample(path, key, members) for key, members in index_tar(path, hidden))
        except StrangeMember as error:
            raise InputError(f"{path}: {error}; pack the tar anew without it, or with another name") from None
        except (tarfile.TarError, OSError) as error:
            if not _begins_as_tar(path):
                raise InputError(f"{path}: expected a tar that is not compressed, found another file") from None
            raise InputError(f"{path}: a truncated or damaged tar ({error}); bring a whole one") from None
    keys = Counter(picture.key for picture in found)
    twice = next((key for key, count in keys.items() if count > 1), None)
    if twice is not None:
        raise InputError(f"{tars[0].parent}: the key {twice} stands for {keys[twice]} samples; give each its own")
    return Pictures(found, +Counter({HIDDEN: len(hidden)}))


def _begins_as_tar(path: Path) -> bool:
    with path.open("rb") as file:
        block = file.read(tarfile.BLOCKSIZE)
    if len(block) < tarfile.BLOCKSIZE:
        return True  # as far as can be told
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except (tarfile.HeaderError, ValueError):
        return False
    return True


def _sample(path: Path, key: str, members: dict[str, Member]) -> Picture:
    images = [name for name in members if "." + _last(name) in picture_suffixes()]
    labels = [name for name in members if _last(name) == CLASS]
    where = f"{path}: sample {key}"
    if len(images) != 1 or len(labels) > 1:
        raise InputError(f"{where} has {', '.join(members)}; expected one picture, and one .{CLASS} if it has a label")
    try:
        label = members[labels[0]].read().decode().strip() if labels else ""
    except UnicodeDecodeError:
        raise InputError(f"{where}: its .{CLASS} is not UTF-8") from None
    record = _record(members["json"]) if set(members) == {"png", "json"} else {}
    image = members[images[0]]
    return Picture(
        key=key,
        name=f"{path}: {key}.{images[0]}",
        read=lambda: _checked(image.read(), record.get("png_sha256"), where),
        label=label,
        classes=tuple(record.get("classes", ())),
    )


def _last(name: str) -> str:
    """`jpg` for `c.jpg`, and for `JPG`: names here are what follows a sample's key and its dot."""
    return name.rpartition(".")[2].lower()


def _record(member: Member) -> dict[str, Any]:
    """What a shard of this project says of its sample; nothing where the JSON is somebody else's."""
    try:
        record = json.loads(member.read())
    except (ValueError, RecursionError):
        return {}
    own = isinstance(record, dict) and {"png_sha256", "classes"} <= record.keys()
    return record if own and all(isinstance(index, int) for index in record["classes"]) else {}


def _checked(content: bytes, sha256: str | None, where: str) -> bytes:
    if sha256 is not None and hashlib.sha256(content).hexdigest() != sha256:
        raise InputError(f"{where} was altered: the digest of its PNG is not the recorded one; bring the shard anew")
    return content
