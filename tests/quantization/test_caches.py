"""Where caches lie changes the memory that is needed, and no byte of what is written."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from pipeline_lib.errors import InputError
from pipeline_lib.quantization.caches import GIB, Caches, Feed
from tests.conftest import ROOT, edit_params
from tests.fakequant.samples import needs_cuda
from tests.quantization.test_quantization import methods, run

CPU = torch.device("cpu")


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
def test_a_cache_gives_back_what_was_stored(tmp_path: Path, layout: torch.memory_format) -> None:
    x = torch.randn(10, 3, 4, 5).contiguous(memory_format=layout)
    for gib, mapped in ((1.0, False), (0.0, True)):
        cache = Caches(CPU, gib, tmp_path).store(10, iter(x.split(4)))
        assert (cache.file is not None) == mapped
        again = torch.cat(list(cache.batches(3)))
        assert torch.equal(again, x)
        assert next(cache.batches(3)).is_contiguous(memory_format=layout)
        kept, held = cache.split(2)
        assert torch.equal(torch.cat(list(kept.batches(8))), x[:8])
        assert torch.equal(torch.cat(list(held.batches(8))), x[8:])
        feed = Feed([cache, kept], torch.tensor([[1, 7], [0, 0]]))
        feed.load(0)
        assert all(torch.equal(batch, x[[1, 7]]) for batch in feed.batch())
        feed.load(1)
        assert all(torch.equal(batch, x[[0, 0]]) for batch in feed.batch())
    assert list(tmp_path.iterdir()) == [], "files have no names: a kill leaves nothing behind"


def test_the_budget_counts_what_is_alive(tmp_path: Path) -> None:
    x = torch.randn(8, 1 << 10)
    caches = Caches(CPU, 2.5 * 4 * x.numel() / GIB, tmp_path)
    first, second, third = (caches.store(8, [x]) for _ in range(3))
    assert (first.file, second.file) == (None, None) and third.file is not None
    caches.keep([second, third])
    assert caches.store(8, [x]).file is None


def test_a_full_disk_is_an_error_that_says_what_to_do() -> None:
    if not Path("/dev/shm").is_dir():
        pytest.skip("no small file system at hand")
    size = os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize
    images = size // (1 << 22) + 2  # of 4 MiB each
    with pytest.raises(InputError, match=r"No space left.*`runtime\.cache_gib`"):
        Caches(CPU, 0.0, Path("/dev/shm")).store(images, [torch.zeros(1, 1 << 20)])


@needs_cuda
def test_on_a_gpu_bytes_do_not_depend_on_the_budget_either(workspace: Path) -> None:
    """What is on the device is captured in a graph, what is in files comes through pinned buffers."""
    np.save("images.npy", np.random.default_rng(0).integers(0, 256, (24, 32, 32, 3), dtype=np.uint8))
    written = []
    for gib in (1.0, 0.0):
        out = run(Path("images.npy"), "resnet", Path(f"out-{gib}"), methods(8), device="cuda", cache_gib=gib)
        written.append({path.name: path.read_bytes() for path in out.iterdir()})
    assert written[0] == written[1]


def reconstruct(workspace: Path, name: str, images: int, cache_gib: float) -> tuple[dict[str, bytes], int]:
    """Run the real stage in a process of its own; its files, and the peak memory of its worst unit in MiB."""
    folder = workspace / f"data/calibration/{name}-wide"
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 256, (images, 96, 96, 3), dtype=np.uint8)
    np.save(folder / "images.npy", pixels)
    edit_params(workspace / "params.yaml", **{"runtime.cache_gib": cache_gib})
    command = [sys.executable, "-m", "stages.reconstruct", name, "wide", "w2a4"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "MALLOC_MMAP_THRESHOLD_": "65536"}
    subprocess.run(command, cwd=workspace, check=True, env=environment, capture_output=True)
    facts = json.loads((workspace / f"data/provenance/reconstruct/{name}-wide-w2a4.json").read_text())
    files = {p.name: p.read_bytes() for p in (workspace / f"data/quantized/{name}-wide-w2a4").iterdir()}
    return files, max(unit["peak_memory_mib"] for unit in facts["units"].values())


def test_memory_stays_within_the_budget_and_bytes_do_not_depend_on_it(workspace: Path) -> None:
    """The model and the work on a batch are what a run on two batches needs; what 448 see would be 350 MiB."""
    source, folder = workspace / "world/classifiers/resnet", workspace / "world/classifiers/wide"
    folder.mkdir()
    card = json.loads((source / "model.json").read_text())
    card["preprocessing"]["input_size"] = [3, 96, 96]
    (folder / "model.json").write_text(json.dumps(card))
    (folder / "model.safetensors").write_bytes((source / "model.safetensors").read_bytes())
    edit_params(workspace / "params.yaml", **{"reconstruct.held_out": 64})
    _, model = reconstruct(workspace, "few", 128, 0.0)
    mapped, small = reconstruct(workspace, "small", 448, 0.1)
    in_memory, large = reconstruct(workspace, "large", 448, 4.0)
    assert mapped == in_memory
    assert small <= model + 0.1 * 1024
    assert large > model + 0.2 * 1024, "the test could not fail"
