"""The audit on a finished pipeline that somebody tampers with: the artifact is named, and nothing is written."""

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from PIL import Image
from safetensors.numpy import load_file, save_file

from pipeline_lib.artifacts.files import dvc_digest, sha256
from pipeline_lib.artifacts.records import read_lines, write_lines
from pipeline_lib.artifacts.shards import pack_shard, read_shard
from pipeline_lib.prompts.vocabulary import read_vocabulary
from tests.conftest import edit_params
from tests.pipeline.conftest import ENVIRONMENT, commit, repro, run

DATASET = Path("data/synthetic/mixup")
CHECKPOINT = Path("data/quantized/mixup-resnet-w2a4")
PROVENANCE = Path("data/provenance/synthesize/mixup.json")


@pytest.fixture
def clone(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    clone = Path(shutil.copytree(finished, tmp_path / "repository", symlinks=True))
    monkeypatch.chdir(clone)
    return clone


def command(*arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [sys.executable, "-m", "pipeline_lib", *arguments], env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    return done.returncode, done.stdout + done.stderr


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


def writable(path: Path) -> Path:
    """The file, no longer shared with DVC's cache."""
    content, times = path.read_bytes(), (path.stat().st_atime_ns, path.stat().st_mtime_ns)
    path.unlink()
    path.write_bytes(content)
    os.utime(path, ns=times)
    return path


def flip(path: Path) -> None:
    """One bit, keeping size and time."""
    times = path.stat().st_atime_ns, path.stat().st_mtime_ns
    content = bytearray(writable(path).read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=times)


def flip_a_shard() -> None:
    flip(DATASET / "000001.tar")


def flip_the_cache() -> None:
    entry = yaml.safe_load(Path("dvc.lock").read_text())["stages"]["prompts@mixup"]["outs"][0]["md5"]
    path = Path(".dvc/cache/files/md5") / entry[:2] / entry[2:]
    path.chmod(0o644)
    flip(path)


def swap_shards() -> None:
    one, two = (writable(DATASET / f"{number:06d}.tar") for number in (0, 1))
    one.rename("aside")
    two.rename(one)
    Path("aside").rename(two)


def edit_the_index() -> None:
    path = writable(DATASET / "index.jsonl")
    path.write_text(path.read_text().replace('"weights": [0.5, 0.5]', '"weights": [0.6, 0.4]', 1))


def drop_a_line_and_commit() -> None:
    path = writable(DATASET / "index.jsonl")
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    dvc_commit("synthesize@mixup")


def dvc_commit(stage: str) -> None:
    run(Path(), "dvc", "commit", "-f", stage)
    commit(Path(), "by hand")


def replace_the_generator() -> None:
    path = Path("world/generator/unet/diffusion_pytorch_model.safetensors")
    weights = load_file(path)
    save_file({name: value * 1.01 for name, value in weights.items()}, path, {"format": "pt"})


def real_images_behind_a_synthetic_source() -> None:
    """Its calibration set is that of real images, blessed by `dvc commit -f`."""
    folder = Path("data/calibration/mixup-resnet")
    images = np.load(writable(folder / "images.npy"))
    np.save(folder / "images.npy", np.random.default_rng(5).integers(0, 256, images.shape, dtype=np.uint8))
    dvc_commit("calibrate@mixup-resnet")


def real_shard_behind_a_synthetic_source() -> None:
    path = writable(DATASET / "000000.tar")
    shutil.copy("world/real.tar", path)
    dvc_commit("synthesize@mixup")


def edit_lock(stage: str, field: str, path: str, md5: str) -> None:
    lock = yaml.safe_load(Path("dvc.lock").read_text())
    (entry,) = [entry for entry in lock["stages"][stage][field] if entry["path"] == path]
    entry["md5"] = md5
    Path("dvc.lock").write_text(yaml.safe_dump(lock, sort_keys=False))


def edit_the_lock() -> None:
    edit_lock("calibrate@mixup-resnet", "deps", str(DATASET), "0" * 32 + ".dir")


def edit_the_lock_of_an_out() -> None:
    flip(CHECKPOINT / "model.safetensors")
    edit_lock("reconstruct@mixup-resnet-w2a4", "outs", str(CHECKPOINT), dvc_digest(CHECKPOINT))


def freeze_and_change() -> None:
    path = Path("dvc.yaml")
    path.write_text(path.read_text().replace("  synthesize:\n", "  synthesize:\n    frozen: true\n", 1))
    edit_params(Path("params.yaml"), **{"synthesize.seed": 9})


def freeze() -> None:
    path = Path("dvc.yaml")
    path.write_text(path.read_text().replace("    do:\n", "    do:\n      frozen: true\n", 1))


def delete_provenance() -> None:
    PROVENANCE.unlink()


def forge_provenance() -> None:
    path = writable(PROVENANCE)
    path.write_text(path.read_text().replace('"git_clean": true', '"git_clean": false'))


def change_a_weight() -> None:
    path = writable(CHECKPOINT / "model.safetensors")
    tensors = load_file(path)
    name = next(name for name in tensors if name.endswith(".integers"))
    tensors[name].reshape(-1)[0] ^= 1
    save_file(tensors, path)
    dvc_commit("reconstruct@mixup-resnet-w2a4")


def break_a_step() -> None:
    path = writable(CHECKPOINT / "model.safetensors")
    tensors = load_file(path)
    tensors["conv1.step"] = -tensors["conv1.step"]
    save_file(tensors, path)


def import_an_undeclared_module() -> None:
    path = Path("stages/prompts.py")
    path.write_text(path.read_text() + "\nimport pipeline_lib.progress\n")


def change_code() -> None:
    path = Path("pipeline_lib/prompts/strategies.py")
    path.write_text(path.read_text() + "# a line\n")


def change_a_parameter() -> None:
    edit_params(Path("params.yaml"), **{"reconstruct.seed": 3})


def another_package() -> None:
    path = writable(PROVENANCE)
    recorded = json.loads(path.read_text())
    recorded["packages"]["diffusers"] = "0.1"
    path.write_text(json.dumps(recorded))
    dvc_commit("synthesize@mixup")


def two_devices() -> None:
    path = writable(PROVENANCE)
    recorded = json.loads(path.read_text())
    recorded["devices"] = {"cpu": 4, "NVIDIA H100": 2}
    path.write_text(json.dumps(recorded))
    dvc_commit("synthesize@mixup")


def a_stranger_among_the_samples() -> None:
    path = writable(Path("data/calibration/mixup-resnet/samples.csv"))
    path.write_text(path.read_text().replace("mixup-000003", "mixup-999999"))


def remove_a_shard() -> None:
    (DATASET / "000002.tar").unlink()


SHARDS = ("outs", "FAIL", str(DATASET))
TAMPERING: dict[Callable[[], None], set[tuple[str, str, str]]] = {
    flip_a_shard: {SHARDS},
    flip_the_cache: {("cache", "FAIL", "data/prompts/mixup.jsonl")},
    swap_shards: {SHARDS},
    edit_the_index: {SHARDS},
    drop_a_line_and_commit: {
        ("provenance", "FAIL", str(DATASET)),
        ("links", "FAIL", str(DATASET)),
        ("datasets", "FAIL", f"{DATASET}/index.jsonl"),
        ("calibration sets", "FAIL", "data/calibration/mixup-resnet/samples.csv"),
    },
    replace_the_generator: {("sources and code", "FAIL", "world/generator")},
    real_images_behind_a_synthetic_source: {("provenance", "FAIL", "data/calibration/mixup-resnet")},
    real_shard_behind_a_synthetic_source: {("provenance", "FAIL", str(DATASET))},
    edit_the_lock: {("links", "FAIL", str(DATASET)), ("committed", "WARN", "dvc.lock")},
    edit_the_lock_of_an_out: {("provenance", "FAIL", str(CHECKPOINT)), ("committed", "WARN", "dvc.lock")},
    freeze: {("frozen", "WARN", "prompts@mixup")},
    freeze_and_change: {("frozen", "WARN", "synthesize@mixup"), ("parameters", "FAIL", "params.yaml: synthesize")},
    delete_provenance: {("provenance", "FAIL", str(PROVENANCE)), ("outs", "FAIL", str(PROVENANCE))},
    forge_provenance: {("outs", "FAIL", str(PROVENANCE))},
    change_a_weight: {("provenance", "FAIL", str(CHECKPOINT))},
    break_a_step: {("checkpoints", "FAIL", f"{CHECKPOINT}/model.safetensors"), ("outs", "FAIL", str(CHECKPOINT))},
    import_an_undeclared_module: {("imports", "FAIL", "pipeline_lib/progress.py")},
    change_code: {("sources and code", "WARN", "pipeline_lib/prompts")},
    change_a_parameter: {("parameters", "WARN", "params.yaml: reconstruct")},
    another_package: {("environment", "WARN", "diffusers")},
    two_devices: {("devices", "WARN", "synthesize@mixup")},
    a_stranger_among_the_samples: {("calibration sets", "FAIL", "data/calibration/mixup-resnet/samples.csv")},
    remove_a_shard: {SHARDS, ("datasets", "FAIL", str(DATASET))},
}


def written(clone: Path) -> dict[Path, int]:
    """When each file was written, but those that DVC and Python write whenever they run."""
    files = (p for p in clone.rglob("*") if p.is_file() and ".dvc/tmp" not in str(p) and p.suffix != ".pyc")
    return {p: p.stat().st_mtime_ns for p in files}


def test_an_untouched_pipeline_is_all_ok_and_stays_untouched(clone: Path) -> None:
    before = written(clone)
    result = audit()
    assert problems(result) == set()
    assert {check["status"] for check in result["checks"]} == {"OK"}
    assert set(verdicts(result).values()) == {"none"}
    assert len(verdicts(result)) == 4
    assert written(clone) == before


@pytest.mark.usefixtures("clone")
@pytest.mark.parametrize("tamper", TAMPERING, ids=lambda tamper: tamper.__name__)
def test_tampering_is_reported(tamper: Callable[[], None]) -> None:
    tamper()
    result = audit()
    assert problems(result) >= TAMPERING[tamper]
    fails = {problem for problem in TAMPERING[tamper] if problem[1] == "FAIL"}
    assert result["failed"] == bool(fails)
    touched = {problem for problem in fails if "prompts" not in problem[2] and problem[0] != "imports"}
    if touched:
        assert verdicts(result)["mixup-resnet-w2a4"].startswith("cannot be said")
        assert verdicts(result)["noise-resnet-w2a4"] == "none"


def test_real_images_are_found_upstream(clone: Path) -> None:
    params = yaml.safe_load(Path("params.yaml").read_text())
    params["axes"].update(real=["real"], sources=["noise", "mixup", "real"], precisions=["w4a4"])
    Path("params.yaml").write_text(yaml.safe_dump(params))
    assert "reconstruct@real-resnet-w4a4" in repro(clone, "reconstruct@real-resnet-w4a4")
    code, text = command("audit", "data/quantized/real-resnet-w4a4")
    assert re.search(
        r"upstream of data/quantized/real-resnet-w4a4: real calibration images, by data/quantized/real-resnet-w4a4 <- "
        r"data/calibration/real-resnet <- world/real.tar",
        text,
    )
    assert "calibrate-real@real-resnet" in text and "read world/real.tar" in text
    assert code == 0, text


def test_a_clone_without_the_data(clone: Path, tmp_path: Path) -> None:
    run(tmp_path, "git", "clone", "-q", "repository", "bare")
    os.chdir(tmp_path / "bare")
    Path("README.md").write_text("a dirty tree")
    assert audit()["failed"]
    result = audit("--allow-missing")
    assert not result["failed"]
    unchecked = {artifact for name, status, artifact in problems(result) if name == "outs"}
    assert str(DATASET) in unchecked and str(CHECKPOINT) in unchecked
    assert set(verdicts(result).values()) == {"none"}


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


def test_clean_lists_and_removes_only_what_is_not_needed(clone: Path) -> None:
    edit_params(Path("params.yaml"), **{"prompts.mixup.seed": 1})
    repro(clone, "prompts@mixup")
    code, text = command("clean")
    assert code == 0
    assert "finished and published" in text and "cached, not named by dvc.lock" in text and "--yes removes" in text
    assert command("clean")[1] == text, "nothing was removed"
    assert "removed" in command("clean", "--yes")[1]
    assert command("clean")[1].startswith("0 orphans")
    edit_params(Path("params.yaml"), **{"prompts.mixup.seed": 0})
    assert repro(clone) == {"prompts@mixup"}, "the earlier prompts are made anew"
    assert not audit()["failed"]


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
    record = writable(PROVENANCE)
    dvc_commit("synthesize@mixup")
    provenance = json.loads(record.read_text())
    provenance["outs"][str(DATASET)] = dvc_digest(DATASET)
    record.write_text(json.dumps(provenance))
    dvc_commit("synthesize@mixup")
    assert ("provenance", "FAIL", str(DATASET)) not in problems(audit()), "whoever forges that too goes unseen"
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
    assert "**Real images upstream: none.** Checks: OK: 15." in text
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
