"""The audit on a finished pipeline that somebody tampers with: the artifact is named, and nothing is written."""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from typer.testing import CliRunner

from pipeline_lib.__main__ import app
from pipeline_lib.artifacts.files import dvc_digest, sha256
from pipeline_lib.artifacts.records import read_lines, write_lines
from pipeline_lib.artifacts.shards import pack_shard, read_shard
from pipeline_lib.errors import InputError
from pipeline_lib.prompts.vocabulary import read_vocabulary
from pipeline_lib.quantization.checkpoint import load_quantized
from tests.conftest import ROOT, edit_params
from tests.pipeline.conftest import ENVIRONMENT, commit, outs, repro, run
from tests.pipeline.tampering import (
    ALL,
    CHECKPOINT,
    DATASET,
    RECORD,
    WAYS,
    WEIGHTS,
    Way,
    bless,
    change_lock,
    dvc_commit,
    edit_record,
    writable,
)

REAL, RECORDED_REAL = "data/quantized/real-resnet-w4a4", Path("data/provenance/calibrate/real-resnet.json")


class Sandbox:
    """A copy of the finished pipeline that is put back between tests, file by file: copying all of it takes longer."""

    def __init__(self, original: Path, path: Path) -> None:
        self.original, self.path = original, path
        shutil.copytree(original, path, symlinks=True)
        self._untouched = self._state()

    def _state(self) -> dict[Path, tuple[int, int, int]]:
        """What changes when a file is written or replaced, by its path in the copy."""
        files = (Path(folder, name) for folder, _, names in os.walk(self.path) for name in names)
        return {
            file.relative_to(self.path): (status.st_ino, status.st_size, status.st_ctime_ns)
            for file in files
            if (status := file.lstat())
        }

    def restore(self) -> None:
        """Put back what was changed or removed, and remove what was added."""
        now = self._state()
        for name in now.keys() - self._untouched.keys():
            (self.path / name).unlink()
        for folder, _, _ in os.walk(self.path, topdown=False):
            if not (self.original / Path(folder).relative_to(self.path)).is_dir():
                os.rmdir(folder)
        for name in [name for name, state in self._untouched.items() if now.get(name) != state]:
            (self.path / name).parent.mkdir(parents=True, exist_ok=True)
            (self.path / name).unlink(missing_ok=True)
            shutil.copy2(self.original / name, self.path / name, follow_symlinks=False)
        self._untouched = self._state()


@pytest.fixture(scope="module")
def sandbox(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Sandbox:
    return Sandbox(finished, tmp_path_factory.mktemp("audit") / "repository")


@pytest.fixture
def clone(sandbox: Sandbox, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(sandbox.path)
    monkeypatch.setenv("PATH", ENVIRONMENT["PATH"])
    yield sandbox.path
    sandbox.restore()


def command(*arguments: str) -> tuple[int, str]:
    """Exit code and output of a command, run in this process: Python's start and imports take longer than an audit."""
    done = CliRunner().invoke(app, list(arguments))
    assert done.exception is None or isinstance(done.exception, SystemExit), done.exception
    return done.exit_code, done.output


def audit(*arguments: str) -> dict[str, Any]:
    code, text = command("audit", "--json", *arguments)
    assert code in (0, 1), text
    result = json.loads(text)
    assert code == result["failed"]
    return result


def problems(result: dict[str, Any]) -> set[tuple[str, str, str]]:
    return {(c["name"], p["status"], p["artifact"]) for c in result["checks"] for p in c["problems"]}


def verdicts(result: dict[str, Any]) -> dict[str, str]:
    return {Path(verdict["checkpoint"]).name: verdict["text"] for verdict in result["real_images"]}


def written(clone: Path) -> dict[Path, int]:
    """When each file was written, but those that DVC and Python write whenever they run."""
    files = (p for p in clone.rglob("*") if p.is_file() and ".dvc/tmp" not in str(p) and p.suffix != ".pyc")
    return {p: p.stat().st_mtime_ns for p in files}


def test_an_untouched_pipeline_is_all_ok_and_stays_untouched(clone: Path) -> None:
    before = written(clone)
    result = audit()
    assert problems(result) == set()
    assert {check["status"] for check in result["checks"]} == {"OK"}
    assert verdicts(result) == dict.fromkeys(ALL, "none")
    assert written(clone) == before


@pytest.mark.usefixtures("clone")
@pytest.mark.parametrize("way", WAYS, ids=lambda way: way.tamper.__name__)
def test_tampering_is_reported(way: Way) -> None:
    way.tamper()
    result = audit()
    assert problems(result) >= set(way.reports)
    assert result["failed"] == any(status == "FAIL" for _, status, _ in way.reports)
    found = verdicts(result)
    assert {name for name in ALL if not found.get(name, "").startswith("none")} == way.doubted
    assert all(found[name].startswith(("cannot be said", "real images")) for name in way.doubted & found.keys())


def test_the_table_of_all_ways_stands_in_the_docs() -> None:
    assert len(WAYS) >= 50
    table = "\n".join(["| way | reported by |", "|---|---|", *(way.row for way in WAYS)])
    assert table in (ROOT / "docs/lineage.md").read_text(encoding="utf-8"), f"write it there:\n{table}"


@pytest.mark.usefixtures("clone")
@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("dvc.yaml", "stages: [1]"),
        ("dvc.yaml", "stages: {prompts: 17}"),
        ("dvc.yaml", "stages: {prompts: {cmd: a, wdir: elsewhere}}"),
        ("dvc.yaml", "a: [b"),
        ("dvc.lock", "stages: [1]"),
        ("dvc.lock", "a: [b"),
    ],
)
def test_what_cannot_be_read_at_all_is_an_error_of_one_line(file: str, content: str) -> None:
    Path(file).write_text(content)
    code, text = command("audit")
    assert code == 2 and text.startswith(f"error: {file}") and text.count("\n") == 1


@pytest.mark.usefixtures("clone")
def test_a_checkpoint_cut_anywhere_is_seen_and_does_not_load() -> None:
    content = WEIGHTS.read_bytes()
    header = 8 + int.from_bytes(content[:8], "little")
    load_quantized(CHECKPOINT)
    for length in (0, 1, 7, 8, 9, header - 1, header, header + 1, len(content) // 2, len(content) - 1):
        writable(WEIGHTS).write_bytes(content[:length])
        with pytest.raises(InputError, match="not a whole safetensors file"):
            load_quantized(CHECKPOINT)
        bless("reconstruct@mixup-resnet-w2a4")
        result = audit(str(CHECKPOINT))
        assert ("checkpoints", "FAIL", str(WEIGHTS)) in problems(result), length
        assert verdicts(result)[CHECKPOINT.name].startswith("cannot be said")


@pytest.mark.usefixtures("clone")
@pytest.mark.parametrize("name", ["integers", "step", "zero_point"])
def test_a_checkpoint_whose_tensor_is_cut_to_one_value_does_not_load(name: str) -> None:
    from safetensors.numpy import load_file, save_file

    tensors = load_file(writable(WEIGHTS))
    tensors[f"conv1.{name}"] = tensors[f"conv1.{name}"].reshape(-1)[:1]
    save_file(tensors, WEIGHTS)
    with pytest.raises(InputError, match=f"conv1.{name}: expected"):
        load_quantized(CHECKPOINT)


def test_real_images_are_found_upstream_whatever_changes_later(clone: Path) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["axes"].update(real=["real"], sources=["noise", "mixup", "real"])
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert "reconstruct@real-resnet-w4a4" in repro(clone, "reconstruct@real-resnet-w4a4")
    commit(clone, "real")
    way = f"{REAL}: real images, by {REAL} <- data/calibration/real-resnet <- world/real.tar"
    code, text = command("audit", REAL)
    assert f"upstream of {way}" in text
    assert "calibrate-real@real-resnet" in text and "read world/real.tar" in text
    assert code == 0, text

    before = {path: path.read_text() for path in (*map(Path, ("dvc.lock", "dvc.yaml", "params.yaml")), RECORDED_REAL)}
    stage = "calibrate-real@real-resnet"

    def drop(stages: dict[str, Any]) -> None:
        stages[stage]["deps"] = [dep for dep in stages[stage]["deps"] if dep["path"] != "world/real.tar"]

    def changes() -> Iterator[None]:
        edit_params(Path("params.yaml"), **{"task.real": "world/elsewhere.tar"})
        yield
        edit_params(Path("params.yaml"), **{"task.classes": "world/real.tar"})
        yield
        edit_params(Path("params.yaml"), **{"axes.real": [], "axes.sources": ["noise", "mixup"]})
        yield
        change_lock(drop)
        yield
        change_lock(drop)
        Path("dvc.yaml").write_text(before[Path("dvc.yaml")].replace('"${task.real}", ', ""))
        yield
        edit_record(lambda record: record["inputs"].pop("world/real.tar"), RECORDED_REAL, stage)
        yield
        change_lock(lambda stages: stages.pop(stage))
        yield

    for _ in changes():
        result = audit(REAL)
        (verdict,) = verdicts(result).values()
        assert result["failed"] and verdict != "none"
        for path, text in before.items():
            path.write_text(text)
    edit_params(Path("params.yaml"), **{"task.real": "world/elsewhere.tar"})
    code, text = command("audit", REAL)
    assert code == 1 and f"upstream of {way}" in text


def test_a_clone_without_the_data(clone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run(tmp_path, "git", "clone", "-q", str(clone), "bare")
    monkeypatch.chdir(tmp_path / "bare")
    Path("README.md").write_text("a dirty tree")
    result = audit("--allow-missing")
    assert result["failed"], "without records nobody knows"
    assert all(text.startswith("cannot be said, because data/provenance/") for text in verdicts(result).values())
    shutil.copytree(clone / "data/provenance", "data/provenance")
    assert audit()["failed"]
    result = audit("--allow-missing")
    assert not result["failed"]
    unchecked = {artifact for name, status, artifact in problems(result) if name == "outs"}
    assert str(DATASET) in unchecked and str(CHECKPOINT) in unchecked
    assert verdicts(result) == dict.fromkeys(ALL, "none")


@pytest.mark.usefixtures("clone")
def test_trace_plan_and_difference() -> None:
    code, text = command("trace", "mixup-000005")
    assert code == 0
    found = json.loads(text)
    assert (found["shard"], found["place_in_shard"]) == ("000001.tar", 1)
    assert found["batch"] == [f"mixup-{number:06d}" for number in range(4, 8)]
    assert [s["path"] for s in found["calibration_sets"]] == ["data/calibration/mixup-resnet"]
    assert found["checkpoints"] == ["data/quantized/mixup-resnet-w4a4", "data/quantized/mixup-resnet-w2a4"]
    assert {"prompt", "classes", "seed", "pixel_deviation"} <= found.keys()
    assert command("trace", "mixup-777777")[0] == 2

    code, text = command("trace", "--class", "Bag")
    assert code == 2 and "there are" in text
    (name, *_) = (entry.name for entry in read_vocabulary(Path("data/fashion/classes.csv")))
    code, text = command("trace", "--class", name)
    assert code == 0
    *rows, total = text.splitlines()
    assert total == f"{len(rows)} samples" and all(name in json.loads(row)["prompt"] for row in rows)
    assert command("trace", "--class", "0") == (0, text), "by its index"

    assert command("audit", "--plan")[1].startswith("0 stages")
    edit_params(Path("params.yaml"), **{"precisions.w2a4.weight_bits": 3})
    plan = command("audit", "--plan")[1]
    assert "reconstruct@mixup-resnet-w2a4: `precisions.w2a4` of params.yaml changed" in plan
    assert "evaluate@mixup-resnet-w2a4: if data/quantized/mixup-resnet-w2a4 changes" in plan
    assert "w4a4" not in plan.replace("report", "")

    code, text = command("audit", str(CHECKPOINT), "--diff", "data/quantized/mixup-resnet-w4a4")
    assert text.startswith("reconstruct@mixup-resnet-w2a4 and reconstruct@mixup-resnet-w4a4: the first that differ")
    assert "precisions.w2a4" in text
    code, text = command("audit", str(CHECKPOINT), "--diff", "data/quantized/noise-resnet-w2a4")
    assert "prompts: only data/quantized/mixup-resnet-w2a4 was made by such a stage" in text


@pytest.mark.usefixtures("clone")
def test_two_classes_of_one_name_are_both_traced() -> None:
    Path("data/fashion/classes.csv").write_text("index,synset\n0,n02012849\n1,n03126707\n")
    code, text = command("trace", "--class", "crane")
    assert code == 0 and "crane is the name of 2 classes, 0 and 1; an index names one" in text
    numbers = [json.loads(line)["class"] for line in text.splitlines() if line.startswith("{")]
    assert set(numbers) == {0, 1}
    alone = command("trace", "--class", "1")[1]
    assert {json.loads(line)["class"] for line in alone.splitlines() if line.startswith("{")} == {1}


def cached_objects() -> set[str]:
    return {path.parent.name + path.name for path in Path(".dvc/cache/files/md5").glob("*/*")}


def change_the_prompts(seed: int) -> str:
    """Run a stage with another seed; the digest of its out, which is in the cache then."""
    edit_params(Path("params.yaml"), **{"prompts.mixup.seed": seed})
    assert repro(Path(), "prompts@mixup") == {"prompts@mixup"}
    return outs(Path(), "prompts@mixup")["data/prompts/mixup.jsonl"]


def test_clean_lists_and_removes_only_what_nothing_names(clone: Path) -> None:
    kept = cached_objects()
    forgotten = change_the_prompts(1)
    change_the_prompts(2)
    code, text = command("clean")
    assert code == 0
    assert "finished and published" in text and "cached, named by no branch" in text and "--yes removes" in text
    assert command("clean")[1] == text, "nothing was removed"
    assert "removed" in command("clean", "--yes")[1]
    assert forgotten not in cached_objects() and kept <= cached_objects()
    assert command("clean")[1].startswith("0 orphans")
    run(clone, "git", "checkout", "-q", ".")
    run(clone, "dvc", "checkout")
    assert not audit()["failed"], "what the branch names can be restored"


def test_clean_keeps_what_refs_and_experiments_name(clone: Path) -> None:
    who = ("-c", "user.name=t", "-c", "user.email=t@t")
    seeds = iter(range(10, 20))
    named = {}

    def committed() -> str:
        """A commit of a run with another seed, which nothing names any more."""
        digest = change_the_prompts(next(seeds))
        commit(clone, "one of several")
        name = run(clone, "git", "rev-parse", "HEAD").strip()
        run(clone, "git", "reset", "-q", "--hard", "HEAD~1")
        named[name] = digest
        return name

    run(clone, "git", "branch", "other", committed())
    run(clone, "git", *who, "tag", "-a", "-m", "release", "v1", committed())
    run(clone, "git", "update-ref", "refs/remotes/origin/theirs", committed())
    run(clone, "git", "update-ref", "refs/exps/ab/cdef/dark-horse", committed())
    run(clone, "git", "worktree", "add", "-q", "--detach", ".work/tree", committed())
    for _ in range(2):
        named[f"stash {len(named)}"] = change_the_prompts(next(seeds))
        run(clone, "git", *who, "stash", "-q")
    named["staged"] = change_the_prompts(next(seeds))
    run(clone, "git", "add", "dvc.lock")
    named["working tree"] = change_the_prompts(next(seeds))
    assert command("clean", "--yes")[0] == 0
    assert not {name for name, digest in named.items() if digest not in cached_objects()}
    run(clone, "git", "worktree", "remove", "--force", ".work/tree")


def test_clean_refuses_a_cache_of_others(clone: Path, tmp_path: Path) -> None:
    for option, value in (("cache.dir", str(tmp_path / "shared")), ("cache.shared", "group")):
        run(clone, "dvc", "config", option, value)
        code, text = command("clean", "--yes")
        assert code == 2 and "expected a cache of this project alone" in text and text.count("\n") == 1
        run(clone, "dvc", "config", "--unset", option)
    shutil.move(".dvc/cache", tmp_path / "moved")
    Path(".dvc/cache").symlink_to(tmp_path / "moved")
    assert command("clean", "--yes")[0] == 2
    Path(".dvc/cache").unlink()
    shutil.move(tmp_path / "moved", ".dvc/cache")


@pytest.mark.usefixtures("clone")
def test_a_forged_sample_is_found_by_rendering_it_again() -> None:
    result = audit("--deep", "3")
    (check,) = (check for check in result["checks"] if check["name"] == "rendered again")
    assert check["status"] == "OK" and check["evidence"].startswith("3 samples")

    path = writable(DATASET / "000000.tar")
    samples = [(sample.image, sample.record) for sample in read_shard(path)]
    forged = samples[0][0].transpose(Image.Transpose.FLIP_LEFT_RIGHT)
    digest = hashlib.sha256(forged.tobytes()).hexdigest()
    path.write_bytes(pack_shard([(forged, {**samples[0][1], "pixel_sha256": digest}), *samples[1:]]))
    record = writable(RECORD)
    dvc_commit("synthesize@mixup")
    provenance = json.loads(record.read_text())
    provenance["outs"][str(DATASET)] = dvc_digest(DATASET)
    record.write_text(json.dumps(provenance))
    dvc_commit("synthesize@mixup")
    assert ("records", "FAIL", str(DATASET)) not in problems(audit()), "whoever forges that too goes unseen"
    assert ("rendered again", "FAIL", str(DATASET)) in problems(audit("--deep", "3"))


@pytest.mark.usefixtures("clone")
def test_croissant_is_valid_and_readable() -> None:
    code, text = command("croissant", str(DATASET))
    assert code == 0, text
    path = DATASET.parent / "croissant.json"
    described = json.loads(text)
    digests = {entry["@id"]: entry["sha256"] for entry in described["distribution"]}
    assert digests == {p.name: sha256(p) for p in DATASET.iterdir()}
    (DATASET / path.name).write_text(text)
    import mlcroissant

    dataset = mlcroissant.Dataset(jsonld=DATASET / path.name)
    rows = list(dataset.records("samples"))
    assert [row["samples/key"] for row in rows] == [f"mixup-{i:06d}".encode() for i in range(24)]
    assert not dataset.metadata.issues.errors
    assert command("croissant", "data/quantized")[0] == 2


@pytest.mark.usefixtures("clone")
def test_model_card() -> None:
    code, text = command("card", str(CHECKPOINT))
    assert code == 0, text
    assert "`resnet18` of timm" in text
    assert "generator weights: `world/generator`" in text
    assert "**Real images upstream: none.** Checks: OK: 23." in text
    assert "| reconstructed | " in text
    assert command("card", str(DATASET))[0] == 2


def measured_audit() -> tuple[float, int]:
    """Seconds and peak memory in MiB of an audit of the dataset, as its process sees it."""
    program = (
        "import atexit, sys; from pipeline_lib.__main__ import app;"
        "from pipeline_lib.artifacts.memory import peak_memory;"
        "atexit.register(lambda: print(peak_memory.whole())); app(['audit', sys.argv[1]])"
    )
    began = time.monotonic()
    printed = subprocess.run(
        [sys.executable, "-c", program, str(DATASET)], env=ENVIRONMENT, capture_output=True, text=True, check=False
    ).stdout
    return time.monotonic() - began, int(printed.splitlines()[-1])


@pytest.mark.slow
@pytest.mark.usefixtures("clone")
def test_a_hundred_thousand_samples_take_no_more_memory() -> None:
    small, (row, *_) = measured_audit(), read_lines(DATASET / "index.jsonl")
    pixels = np.random.default_rng(0).integers(0, 256, (128, 64, 64, 3), dtype=np.uint8)
    shutil.rmtree(DATASET)
    DATASET.mkdir()
    index = []
    for number in range(782):
        records = [{**row, "key": f"mixup-{128 * number + i:06d}"} for i in range(128)]
        name = f"{number:06d}.tar"
        (DATASET / name).write_bytes(pack_shard(zip(map(Image.fromarray, pixels), records, strict=True)))
        index += [{**record, "shard": name} for record in records]
    write_lines(DATASET / "index.jsonl", index)
    dvc_commit("synthesize@mixup")
    size = sum(path.stat().st_size for path in DATASET.iterdir()) >> 20
    large = measured_audit()
    print(
        f"\n24 samples: {small[0]:.1f} s, {small[1]} MiB; {len(index)} samples, {size} MiB and as much in DVC's cache: "
    )
    print(f"{large[0]:.1f} s, {large[1]} MiB")
    assert large[1] - small[1] < 64
