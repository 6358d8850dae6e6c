"""WebDataset tar shards with stable bytes: a PNG and a JSON a sample."""

import hashlib
import io
import json
import tarfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image

from pipeline_lib.errors import InputError

MEND = "delete it and run `dvc checkout`, or `dvc repro` to make it again"


@dataclass(frozen=True)
class Sample:
    """One image of a shard. `record` is its JSON, with `key` and the SHA-256 of the PNG bytes."""

    image: Image.Image
    record: dict[str, Any]

    @property
    def key(self) -> str:
        """Name of the sample, unique in its dataset."""
        return str(self.record["key"])


def pack_shard(samples: Iterable[tuple[Image.Image, dict[str, Any]]]) -> bytes:
    """A tar of images with their records, which must have a `key`. The same samples give the same bytes."""
    import webdataset  # imports torch, which readers of shards do without

    tar = io.BytesIO()
    with webdataset.TarWriter(tar, mtime=0, user="root", group="root", mode=0o644) as writer:
        for image, record in samples:
            buffer = io.BytesIO()
            image.save(buffer, "PNG")
            png = buffer.getvalue()
            text = json.dumps({**record, "png_sha256": hashlib.sha256(png).hexdigest()}, ensure_ascii=False)
            writer.write({"__key__": record["key"], "png": png, "json": text.encode()})
    return tar.getvalue()


def read_shard(path: Path) -> Iterator[Sample]:
    """The samples of a shard, in order, each checked against its own digest.

    Raises:
        InputError: the shard is absent, truncated or altered.
    """
    for key, png, record in _members(path):
        if hashlib.sha256(png).hexdigest() != record.get("png_sha256"):
            raise InputError(f"{path}: image {key}.png was altered: its digest is not the recorded one; {MEND}")
        yield Sample(Image.open(io.BytesIO(png)), record)


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a shard, in order; the images are not looked at.

    Raises:
        InputError: the shard is absent, truncated or altered.
    """
    for _, _, record in _members(path):
        yield record


def _members(path: Path) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """Key, PNG bytes and record of each sample. tarfile, unlike webdataset's reader, raises on a truncated file."""
    try:
        _check_end(path)
        with tarfile.open(path, "r:") as tar:
            record: tuple[str, bytes] | None = None  # webdataset writes a sample's files in alphabetical order
            for member in tar:
                key, _, extension = member.name.rpartition(".")
                file = tar.extractfile(member)
                content = file.read() if file else b""
                if len(content) != member.size:
                    raise tarfile.ReadError("unexpected end of data")
                if extension == "json" and record is None:
                    record = key, content
                elif extension == "png" and record is not None and record[0] == key:
                    yield key, content, json.loads(record[1])
                    record = None
                else:
                    raise tarfile.ReadError(f"unexpected member {member.name}")
            if record is not None:
                raise tarfile.ReadError(f"{record[0]}.json has no image")
    except FileNotFoundError:
        raise InputError(f"{path}: shard not found; `dvc checkout` or `dvc repro` brings it") from None
    except (tarfile.TarError, json.JSONDecodeError, OSError) as error:
        raise InputError(f"{path}: truncated or damaged shard ({error}); {MEND}") from None


def _check_end(path: Path) -> None:
    """A tar cut between two members still reads as a tar; only the zeros at its end tell."""
    with path.open("rb") as file:
        size = file.seek(0, 2)
        file.seek(max(0, size - 2 * tarfile.BLOCKSIZE))
        if size % tarfile.RECORDSIZE or any(file.read()):
            raise tarfile.ReadError("no end of archive")
