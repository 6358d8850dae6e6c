"""Shards: stable bytes, and no way to read a damaged one."""

from pathlib import Path

import numpy as np
import pytest
import webdataset
from PIL import Image

from pipeline_lib.artifacts.shards import pack_shard, read_shard
from pipeline_lib.errors import InputError


def samples(count: int = 3) -> list[tuple[Image.Image, dict]]:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 8, 8, 3), dtype=np.uint8)
    return [(Image.fromarray(p), {"key": f"s-{i}", "classes": [i]}) for i, p in enumerate(pixels)]


def test_same_samples_same_bytes_and_back(tmp_path: Path) -> None:
    tar = pack_shard(samples())
    assert tar == pack_shard(samples())
    path = tmp_path / "000000.tar"
    path.write_bytes(tar)
    read = list(read_shard(path))
    assert [s.key for s in read] == ["s-0", "s-1", "s-2"]
    for sample, (image, record) in zip(read, samples(), strict=True):
        assert np.array_equal(np.asarray(sample.image), np.asarray(image))
        assert sample.record.items() >= record.items()


def test_plain_webdataset_reads_it(tmp_path: Path) -> None:
    path = tmp_path / "000000.tar"
    path.write_bytes(pack_shard(samples()))
    read = list(
        webdataset.WebDataset(str(path), shardshuffle=False, empty_check=False).decode("pil").to_tuple("png", "json")
    )
    assert [record["key"] for _, record in read] == ["s-0", "s-1", "s-2"]


@pytest.mark.parametrize("cut", [1, 700, 1500, 3000])
def test_truncated(tmp_path: Path, cut: int) -> None:
    tar = pack_shard(samples()).rstrip(b"\0")
    path = tmp_path / "000000.tar"
    path.write_bytes(tar[:-cut])
    with pytest.raises(InputError, match="000000.tar"):
        list(read_shard(path))


def test_flipped_byte_in_an_image(tmp_path: Path) -> None:
    tar = bytearray(pack_shard(samples()))
    place = tar.index(b"IDAT") + 8
    tar[place] ^= 1
    path = tmp_path / "000000.tar"
    path.write_bytes(tar)
    with pytest.raises(InputError, match="altered"):
        list(read_shard(path))


def test_absent(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="not found"):
        list(read_shard(tmp_path / "000000.tar"))
