"""Rendering through a real, tiny Stable Diffusion pipeline."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pipeline_lib.artifacts.fingerprints import seed_of
from pipeline_lib.artifacts.hub import locate
from pipeline_lib.artifacts.records import read_lines, write_lines
from pipeline_lib.artifacts.shards import read_shard
from pipeline_lib.errors import InputError, RunError
from pipeline_lib.params.base import read
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.prompts.similarity import text_similarities
from pipeline_lib.synthesis import synthesize
from pipeline_lib.synthesis.plan import plan_shards
from pipeline_lib.synthesis.synthesize import Synthesis


@pytest.fixture
def prompts(workspace: Path) -> Path:
    path = workspace / "prompts.jsonl"
    row = {"negative_prompt": "", "classes": [0, 1], "weights": [0.5, 0.5]}
    write_lines(path, ({"key": f"mixup-{i:06d}", "prompt": "a b", **row} for i in range(10)))
    return path


def synthesis(prompts: Path, recipe: str, workers: int = 1, **changes: object) -> Synthesis:
    params = read(Synthesize, "synthesize").model_copy(update=changes)
    runtime = read(Runtime, "runtime").model_copy(update={"device": "cpu", "workers": workers})
    return Synthesis(recipe, prompts, Path("world/generator"), params, runtime)


def run(prompts: Path, out: str, workers: int = 1, **changes: object) -> dict[str, Any]:
    return synthesis(prompts, out, workers, **changes).run(Path(out))


def files(out: str) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(Path(out).iterdir())}


def render(prompts: Path, out: str, workers: int = 1, **changes: object) -> dict[str, bytes]:
    run(prompts, out, workers, **changes)
    return files(out)


def test_shards_index_and_seeds(prompts: Path) -> None:
    assert list(render(prompts, "out")) == ["000000.tar", "000001.tar", "000002.tar", "index.jsonl"]
    index = read_lines(Path("out/index.jsonl"))
    assert [row["key"] for row in index] == [f"mixup-{i:06d}" for i in range(10)]
    assert [row["seed"] for row in index] == [seed_of("synthesis", 0, row["key"]) for row in index]
    assert len({row["pixel_sha256"] for row in index}) == 10, "each seed its own picture"
    assert [s.image.size for s in read_shard(Path("out/000002.tar"))] == [(16, 16)] * 2


def test_bytes_do_not_depend_on_the_number_of_workers_or_on_who_renders_which_shard(prompts: Path) -> None:
    whole = render(prompts, "one")
    assert render(prompts, "two", workers=2) == whole
    for first, last in ((1, 2), (0, 0)):
        facts = synthesis(prompts, "halves").work_on(first, last)
        assert facts["images_rendered_in_this_run"] == {1: 6, 0: 4}[first]
    assert not Path("halves").exists()
    assert run(prompts, "halves")["images_rendered_in_this_run"] == 0, "the whole run only assembles"
    assert files("halves") == whole
    with pytest.raises(InputError, match="numbers of 0 to 2, found 2-3"):
        synthesis(prompts, "halves").work_on(2, 3)


def test_a_longer_dataset_keeps_the_shards_of_the_shorter(prompts: Path) -> None:
    whole = render(prompts, "whole")
    write_lines(prompts, read_lines(prompts)[:8])
    shorter = render(prompts, "shorter")
    assert all(whole[name] == shorter[name] for name in ("000000.tar", "000001.tar"))


def test_interrupted_work_is_continued_not_repeated(prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = render(prompts, "whole")
    real, rendered = synthesize.make_worker, []

    def failing(*arguments: object) -> object:
        worker = real(*arguments)

        def render_shard(shard: object) -> object:
            rendered.append(shard.number)
            if len(rendered) == 3:
                raise KeyboardInterrupt
            return worker(shard)

        return render_shard

    monkeypatch.setattr(synthesize, "make_worker", failing)
    with pytest.raises(KeyboardInterrupt):
        run(prompts, "out")
    assert not Path("out").exists()
    assert render(prompts, "out") == whole
    assert rendered == [0, 1, 2, 2]


def test_a_finished_dataset_that_dvc_did_not_take_is_not_rendered_again(prompts: Path) -> None:
    whole = render(prompts, "out")
    shutil.rmtree("out")  # as DVC does before it runs the stage anew
    assert run(prompts, "out")["images_rendered_in_this_run"] == 0
    assert files("out") == whole
    run(prompts, "out", seed=1)
    assert len(list(Path(".work/synthesize").glob("*/units"))) == 1, "published work of another identity is forgotten"


def test_bad_images_are_counted_recorded_and_bounded(prompts: Path) -> None:
    facts = run(prompts, "out", blank_deviation=1000.0)
    assert facts["bad_images"] == {"blank": 10}
    assert all(row["defect"] == "blank" for row in read_lines(Path("out/index.jsonl")))
    with pytest.raises(RunError, match=r"10 of 10 images are bad.*\(0.5\): mixup-000000 \(blank\), mixup-000001"):
        run(prompts, "none", blank_deviation=1000.0, max_bad_fraction=0.5)
    assert not Path("none").exists()
    facts = run(prompts, "none", blank_deviation=1000.0, max_bad_fraction=1.0)
    assert facts["images_rendered_in_this_run"] == 0, "another bound renders nothing again"


def test_duplicates_point_at_the_first(prompts: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline_lib.synthesis.plan.seed_of", lambda *_: 5)
    assert run(prompts, "out", batch_size=1)["bad_images"] == {"duplicate": 9}
    assert [row["duplicate_of"] for row in read_lines(Path("out/index.jsonl"))] == [None, *["mixup-000000"] * 9]


def test_scheduler_by_name(prompts: Path) -> None:
    other = render(prompts, "ddim", scheduler="DDIMScheduler")
    assert other["000000.tar"] != render(prompts, "own")["000000.tar"]
    with pytest.raises(InputError, match="scheduler class of diffusers"):
        render(prompts, "none", scheduler="NoScheduler")


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
    for repository in ("b", "world/generator/vae", "./world", "/world/generator", "../a/b", "a/../b", "a/b\n", ""):
        (hub / "hub.json").write_text(json.dumps({"repository": repository, "revision": "0" * 40}))
        with pytest.raises(InputError, match="OWNER/NAME"):
            locate(hub)
    (hub / "hub.json").write_text(json.dumps({"repository": "world/generator", "revision": "0" * 40}))
    for reader in (locate, lambda folder: text_similarities(folder, ["a", "b"])):
        with pytest.raises(InputError, match="world/generator is a folder here"):
            reader(hub)
    shutil.rmtree(workspace / "world/generator/vae")
    with pytest.raises(InputError, match="vae/, which is absent"):
        locate(workspace / "world/generator")
