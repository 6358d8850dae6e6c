"""Datasets that are grown, shortened and shared: nothing is rendered, nor downloaded, that need not be."""

import json
import shutil
from pathlib import Path

import pytest
import yaml

from pipeline_lib.artifacts.files import dvc_digest
from pipeline_lib.artifacts.records import read_json
from tests.conftest import edit_params
from tests.pipeline.conftest import cells, commit, repro, run

DATASET = Path("data/synthetic/mixup")


@pytest.fixture
def clone(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "repository", symlinks=True))


def contents(clone: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (clone / DATASET).iterdir()}


def test_growing_renders_only_the_new_shards_and_shortening_none(clone: Path) -> None:
    def count(images: int) -> int:
        edit_params(clone / "params.yaml", **{"prompts.mixup.count": images})
        assert "synthesize@mixup" in repro(clone, "synthesize@mixup")
        facts = read_json(clone / "data/provenance/synthesize/mixup.json")
        assert facts["images"] == images
        assert set(facts["shards"]) == {name for name in contents(clone) if name.endswith(".tar")}
        return int(facts["images_rendered_in_this_run"])

    first = contents(clone)
    assert count(34) == 10, "six shards of four images are there"
    grown = contents(clone)
    assert grown.pop("index.jsonl").startswith(first.pop("index.jsonl"))
    assert {name: grown[name] for name in first} == first
    assert count(16) == 0
    assert contents(clone).keys() == {*(f"{i:06d}.tar" for i in range(4)), "index.jsonl"}

    victim = next(
        p for p in (clone / ".dvc/cache/files/md5").rglob("*") if p.is_file() and p.read_bytes() == first["000002.tar"]
    )
    victim.chmod(0o644)
    victim.write_bytes(victim.read_bytes()[:-1] + b"x")
    assert count(20) == 4 + 4, "what the cache has altered is rendered again"
    assert contents(clone).items() >= {name: grown[name] for name in ("000002.tar", "000004.tar")}.items()


def test_a_clone_is_clean_after_a_pull(clone: Path, tmp_path: Path) -> None:
    run(clone, "dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    run(clone, "dvc", "push")
    commit(clone, "shared")

    run(tmp_path, "git", "clone", "-q", "repository", "other")
    other = tmp_path / "other"
    run(other, "dvc", "pull")
    assert run(other, "git", "status", "--porcelain") == ""
    assert json.loads(run(other, "dvc", "status", "--json")) == {}

    # A folder that the report reads: which files git ignores is nothing that it reads.
    (other / "data/preview/.gitignore").write_text("/mixup-resnet\n")
    assert json.loads(run(other, "dvc", "status", "--json")) == {}
    lock = yaml.safe_load((other / "dvc.lock").read_text())
    recorded = {dep["path"]: dep["md5"] for dep in lock["stages"]["report"]["deps"]}
    assert dvc_digest(other / "data/preview") == recorded["data/preview"]


def test_a_clone_with_the_remote_runs_nothing(clone: Path, tmp_path: Path) -> None:
    run(clone, "dvc", "remote", "add", "--default", "store", str(tmp_path / "store"))
    run(clone, "dvc", "push", "--run-cache")
    commit(clone, "shared")

    run(tmp_path, "git", "clone", "-q", "repository", "other")
    other = tmp_path / "other"
    run(other, "dvc", "pull", "--run-cache")
    assert repro(other) == set()
    assert contents(other) == contents(clone)
    edit_params(other / "params.yaml", **{"reconstruct.seed": 7})
    assert repro(other, "--dry") >= cells("reconstruct")

    run(tmp_path, "git", "clone", "-q", "repository", "third")
    third = tmp_path / "third"
    edit_params(third / "params.yaml", **{"evaluate.confidence": 0.9})
    ran = repro(third, "--pull", "--allow-missing")
    assert ran == {"evaluate-float@resnet", "report"} | cells("evaluate")
    assert not (third / DATASET).exists()
    assert not (third / "data/calibration").exists()
    tars = [p for p in (third / ".dvc/cache/files").rglob("*") if p.is_file() and p.read_bytes()[257:262] == b"ustar"]
    assert not tars, "no image was downloaded"

    mine = tmp_path / "mine"
    mine.mkdir()
    run(mine, "git", "init", "-q")
    run(mine, "dvc", "init", "-q")
    run(mine, "dvc", "get", "-q", str(clone), str(DATASET), "-o", "got")
    run(mine, "dvc", "import", "-q", str(clone), str(DATASET), "-o", "imported")
    assert {p.name: p.read_bytes() for p in (mine / "got").iterdir()} == contents(clone)
    assert {p.name: p.read_bytes() for p in (mine / "imported").iterdir()} == contents(clone)
    assert read_with_webdataset(mine / "got") == 24


def read_with_webdataset(folder: Path) -> int:
    import webdataset

    shards = sorted(str(path) for path in folder.glob("*.tar"))
    samples = webdataset.WebDataset(shards, shardshuffle=False).decode("pil").to_tuple("png", "json")
    return sum(image.size == (16, 16) and bool(record["prompt"]) for image, record in samples)
