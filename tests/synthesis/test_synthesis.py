"""Rendering through a real, tiny Stable Diffusion pipeline."""

import json
import shutil
from pathlib import Path

import pytest

from pipeline_lib.artifacts.fingerprints import seed_of
from pipeline_lib.artifacts.records import read_lines, write_lines
from pipeline_lib.artifacts.shards import read_shard
from pipeline_lib.errors import InputError
from pipeline_lib.params.base import read
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.synthesis import synthesize as synthesis
from pipeline_lib.synthesis.generator import locate
from pipeline_lib.synthesis.plan import plan_shards


@pytest.fixture
def prompts(workspace: Path) -> Path:
    path = workspace / "prompts.jsonl"
    row = {"negative_prompt": "", "classes": [0, 1], "weights": [0.5, 0.5]}
    write_lines(path, ({"key": f"mixup-{i:06d}", "prompt": "a b", **row} for i in range(10)))
    return path


def render(prompts: Path, out: Path, workers: int = 1, **changes: object) -> dict[str, bytes]:
    params = read(Synthesize, "synthesize").model_copy(update=changes)
    runtime = Runtime(device="cpu", threads=1, workers=workers, cache_gib=1.0)
    synthesis.synthesize(prompts, Path("world/generator"), params, runtime, out)
    return {path.name: path.read_bytes() for path in sorted(out.iterdir())}


def test_shards_index_and_seeds(prompts: Path) -> None:
    files = render(prompts, Path("out"))
    assert list(files) == ["000000.tar", "000001.tar", "000002.tar", "index.jsonl"]
    index = read_lines(Path("out/index.jsonl"))
    assert [row["key"] for row in index] == [f"mixup-{i:06d}" for i in range(10)]
    assert [row["seed"] for row in index] == [seed_of("synthesis", 0, row["key"]) for row in index]
    assert len({row["png_sha256"] for row in index}) == 10, "each seed its own picture"
    assert [s.image.size for s in read_shard(Path("out/000002.tar"))] == [(16, 16)] * 2
    assert not list(Path(".work/synthesize").glob("*/units"))


def test_bytes_do_not_depend_on_the_number_of_workers(prompts: Path) -> None:
    assert render(prompts, Path("one")) == render(prompts, Path("two"), workers=2)


def test_a_longer_dataset_keeps_the_shards_of_the_shorter(prompts: Path) -> None:
    whole = render(prompts, Path("whole"))
    write_lines(prompts, read_lines(prompts)[:8])
    shorter = render(prompts, Path("shorter"))
    assert all(whole[name] == shorter[name] for name in ("000000.tar", "000001.tar"))


def test_interrupted_work_is_continued_not_repeated(prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = render(prompts, Path("whole"))
    real, rendered = synthesis.make_worker, []

    def failing(*arguments: object) -> object:
        worker = real(*arguments)

        def render_shard(shard: object) -> bytes:
            rendered.append(shard.number)
            if len(rendered) == 3:
                raise KeyboardInterrupt
            return worker(shard)

        return render_shard

    monkeypatch.setattr(synthesis, "make_worker", failing)
    with pytest.raises(KeyboardInterrupt):
        render(prompts, Path("out"))
    assert not Path("out").exists()
    assert render(prompts, Path("out")) == whole
    assert rendered == [0, 1, 2, 2]


def test_blank_images_are_counted_and_recorded(prompts: Path) -> None:
    params = read(Synthesize, "synthesize").model_copy(update={"blank_deviation": 1000.0})
    facts = synthesis.synthesize(
        prompts, Path("world/generator"), params, Runtime(device="cpu", threads=1, workers=1, cache_gib=1.0), Path("out")
    )
    assert facts["blank_images"] == 10
    assert all(row["blank"] for row in read_lines(Path("out/index.jsonl")))


def test_scheduler_by_name(prompts: Path) -> None:
    other = render(prompts, Path("ddim"), scheduler="DDIMScheduler")
    assert other["000000.tar"] != render(prompts, Path("own"))["000000.tar"]
    with pytest.raises(InputError, match="scheduler class of diffusers"):
        render(prompts, Path("none"), scheduler="NoScheduler")


def test_seeds_derive_from_keys_not_from_places() -> None:
    rows = [{"key": f"k{i}"} for i in range(6)]
    forward = {s["key"]: s["seed"] for shard in plan_shards(rows, 4, 7) for s in shard.samples}
    backward = {s["key"]: s["seed"] for shard in plan_shards(rows[::-1], 2, 7) for s in shard.samples}
    assert forward == backward


def test_generator_folders(workspace: Path) -> None:
    hub = workspace / "hub"
    hub.mkdir()
    with pytest.raises(InputError, match="no generator here"):
        locate(hub)
    (hub / "hub.json").write_text(json.dumps({"repository": "a/b", "revision": "main"}))
    with pytest.raises(InputError, match="40 hex digits"):
        locate(hub)
    (hub / "hub.json").write_text(json.dumps({"repository": "a/b", "revision": "0" * 40}))
    assert locate(hub) == ("a/b", "0" * 40)
    shutil.rmtree(workspace / "world/generator/vae")
    with pytest.raises(InputError, match="vae/, which is absent"):
        locate(workspace / "world/generator")
