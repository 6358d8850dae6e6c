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

from pipeline_lib.artifacts.records import KeyedRow, check_row, parse_json
from pipeline_lib.artifacts.tars import read_tar
from pipeline_lib.errors import InputError, one_line

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
    for key, png, record in _read(path):
        if hashlib.sha256(png).hexdigest() != record.get("png_sha256"):
            raise InputError(f"{path}: image {key}.png was altered: its digest is not the recorded one; {MEND}")
        yield Sample(Image.open(io.BytesIO(png)), record)


def read_records(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a shard, in order; the images are not looked at.

    Raises:
        InputError: the shard is absent, truncated or altered.
    """
    for _, _, record in _read(path):
        yield record


def _read(path: Path) -> Iterator[tuple[str, bytes, dict[str, Any]]]:
    """Key, PNG bytes and record of each sample."""
    try:
        for key, files in read_tar(path):
            if files.keys() != {"png", "json"}:
                raise tarfile.ReadError(f"sample {key} has {', '.join(files)}, not png and json")
            record = parse_json(files["json"].decode(), f"{path}: {key}.json", MEND)
            check_row(record, KeyedRow, f"{path}: {key}.json", MEND)
            yield key, files["png"], record
    except FileNotFoundError:
        raise InputError(f"{path}: shard not found; `dvc checkout` or `dvc repro` brings it") from None
    except (tarfile.TarError, UnicodeError, OSError) as error:
        raise InputError(f"{path}: truncated or damaged shard ({one_line(error)}); {MEND}") from None
