"""Bad input to any stage: one clear line, exit code 2, no half-written output."""

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from pipeline_lib.artifacts.dvc_cache import last_run
from pipeline_lib.artifacts.records import write_lines
from pipeline_lib.artifacts.workdir import WorkDirectory
from pipeline_lib.calibration.sets import read_set
from pipeline_lib.errors import InputError
from pipeline_lib.params.base import read
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.synthesis.synthesize import Synthesis
from tests.conftest import edit_params, write_idx

Stage = Callable[..., int]
OUTS = ("prompts", "synthetic", "calibration", "quantized", "evaluation", "provenance")


@pytest.fixture
def refused(workspace: Path, stage: Stage, capsys: pytest.CaptureFixture[str]) -> Callable[..., None]:
    def check(said: str, *command: str) -> None:
        before = {p: p.stat().st_mtime_ns for out in OUTS for p in (workspace / "data" / out).rglob("*")}
        capsys.readouterr()
        assert stage(*command) == 2
        lines = capsys.readouterr().err.strip().splitlines()
        assert len(lines) == 1, lines
        assert lines[0].startswith("error: ")
        assert said in lines[0]
        after = {p: p.stat().st_mtime_ns for out in OUTS for p in (workspace / "data" / out).rglob("*")}
        written = [p for p, time in after.items() if p.is_file() and before.get(p) != time]
        assert not written

    return check


@pytest.fixture
def rendered(workspace: Path, stage: Stage) -> Path:
    assert stage("prompts", "single") == 0
    assert stage("synthesize", "single") == 0
    return workspace / "data/synthetic/single"


def calibrated(stage: Stage, model: str = "resnet") -> None:
    assert stage("calibrate", "noise", model, "--images", "noise") == 0


def test_unknown_and_mistyped_params(workspace: Path, refused: Callable[..., None]) -> None:
    edit_params(workspace / "params.yaml", **{"prompts.single.cuont": 5})
    refused("unknown key `prompts.single.cuont`", "prompts", "single")
    edit_params(workspace / "params.yaml", **{"synthesize.steps": "many"})
    refused("`synthesize.steps` is 'many'", "synthesize", "single")
    refused("no key `prompts.absent`", "prompts", "absent")


def test_missing_class(workspace: Path, refused: Callable[..., None]) -> None:
    classes = workspace / "data/fashion/classes.csv"
    text = classes.read_text()
    classes.write_text("\n".join(line for line in text.splitlines() if "coat" not in line))
    refused("expected class index 4", "prompts", "single")


def test_absent_and_incomplete_generator(workspace: Path, stage: Stage, refused: Callable[..., None]) -> None:
    assert stage("prompts", "single") == 0
    (workspace / "world/generator/unet/diffusion_pytorch_model.safetensors").unlink()
    refused("cannot load the generator", "synthesize", "single")
    shutil.rmtree(workspace / "world/generator/unet")
    refused("unet/, which is absent", "synthesize", "single")
    shutil.rmtree(workspace / "world/generator")
    refused("no generator here", "synthesize", "single")


def test_unknown_timm_model(workspace: Path, stage: Stage, refused: Callable[..., None]) -> None:
    calibrated(stage)
    card = workspace / "world/classifiers/resnet/model.json"
    card.write_text(json.dumps({**json.loads(card.read_text()), "timm": "resnet81"}))
    refused("timm has no model 'resnet81'", "reconstruct", "noise", "resnet", "w2a4")
    refused("no classifier here", "calibrate", "noise", "absent", "--images", "noise")


def test_checkpoint_of_another_shape_and_altered(workspace: Path, stage: Stage, refused: Callable[..., None]) -> None:
    calibrated(stage)
    folder = workspace / "world/classifiers/resnet"
    card = json.loads((folder / "model.json").read_text())
    wider = {**card, "arguments": {**card["arguments"], "channels": [8, 8, 16, 32]}}
    (folder / "model.json").write_text(json.dumps(wider))
    refused("the network of model.json has", "reconstruct", "noise", "resnet", "w2a4")
    (folder / "model.json").write_text(json.dumps({**card, "sha256": "0" * 64}))
    refused("expected the weights with SHA-256 000000000000", "reconstruct", "noise", "resnet", "w2a4")


def test_truncated_altered_and_missing_shard(rendered: Path, refused: Callable[..., None]) -> None:
    shard = rendered / "000001.tar"
    whole = shard.read_bytes()
    shard.write_bytes(whole[: len(whole) // 2])
    refused("000001.tar: truncated or damaged shard", "calibrate", "single", "resnet", "--images", "rendered")
    altered = bytearray(whole)
    altered[whole.index(b"IDAT") + 9] ^= 1
    shard.write_bytes(altered)
    refused("was altered", "calibrate", "single", "resnet", "--images", "rendered")
    (rendered / "000002.tar").rename(shard)
    refused("is not what", "calibrate", "single", "resnet", "--images", "rendered")
    shard.unlink()
    refused("shard not found", "calibrate", "single", "resnet", "--images", "rendered")


def test_fewer_images_than_asked_for(workspace: Path, rendered: Path, refused: Callable[..., None]) -> None:
    edit_params(workspace / "params.yaml", **{"calibrate.count": 25})
    refused("asked for 25 images", "calibrate", "single", "resnet", "--images", "rendered")
    refused("asked for 25 images", "calibrate", "real", "resnet", "--images", "real")


def test_all_held_out(workspace: Path, stage: Stage, refused: Callable[..., None]) -> None:
    calibrated(stage)
    edit_params(workspace / "params.yaml", **{"reconstruct.held_out": 24})
    refused("24 images, of which `reconstruct.held_out` keeps 24", "reconstruct", "noise", "resnet", "w2a4")


def test_calibration_set_of_another_network(workspace: Path, stage: Stage, refused: Callable[..., None]) -> None:
    calibrated(stage)
    shutil.copytree(workspace / "data/calibration/noise-resnet", workspace / "data/calibration/noise-vit")
    refused("expected images of 16x16", "reconstruct", "noise", "vit", "w2a4")


def test_empty_absent_and_foreign_test_set(workspace: Path, refused: Callable[..., None]) -> None:
    test = workspace / "world/test"
    write_idx(test / "labels-idx1-ubyte.gz", np.arange(40) % 11)
    refused("label 10, expected those of 10 classes: 0 to 9", "evaluate_float", "resnet")
    (test / "images-idx3-ubyte.gz").write_bytes(b"not gzip")
    refused("not a whole gzipped idx file", "evaluate_float", "resnet")
    for file in test.iterdir():
        file.unlink()
    refused("no labelled images", "evaluate_float", "resnet")
    test.rmdir()
    refused("expected a folder of labelled images, found nothing", "evaluate_float", "resnet")


def test_classes_that_do_not_fit_the_network(workspace: Path, refused: Callable[..., None]) -> None:
    classes = workspace / "data/fashion/classes.csv"
    classes.write_text("\n".join(classes.read_text().splitlines()[:-1]) + "\n")
    refused("a network of 10 classes, but `task.classes` lists 9", "evaluate_float", "resnet")


def test_two_runs_on_one_work_directory(workspace: Path, stage: Stage, refused: Callable[..., None]) -> None:
    assert stage("prompts", "single") == 0
    prompts, params, runtime = (
        Path("data/prompts/single.jsonl"),
        read(Synthesize, "synthesize"),
        read(Runtime, "runtime"),
    )
    pixels = Synthesis("single", prompts, Path("world/generator"), params, runtime).pixels
    with WorkDirectory.locked("synthesize", pixels):
        refused("another run is at work here", "synthesize", "single")
        refused("another run is at work here", "synthesize", "single", "--work-only", "--shards", "0-1")
    with WorkDirectory.locked("synthesize", pixels, part="0-1"):
        refused("another run is at work here", "synthesize", "single")
        assert stage("synthesize", "single", "--work-only", "--shards", "2-3") == 0
    refused("--work-only goes with --shards", "synthesize", "single", "--shards", "0-1")
    refused("--work-only goes with --shards", "synthesize", "single", "--work-only", "--shards", "first")


def test_usage(stage: Stage) -> None:
    assert stage("prompts") == 2
    assert stage("prompts", "--help") == 0


def test_no_prompts(workspace: Path, refused: Callable[..., None]) -> None:
    refused("single.jsonl: not found", "synthesize", "single")
    write_lines(workspace / "data/prompts/single.jsonl", [])
    refused("no prompts", "synthesize", "single")


def cut(row: dict[str, object], key: str) -> dict[str, object]:
    return {name: value for name, value in row.items() if name != key}


ROW = {"key": "single-000001", "prompt": "a bag", "negative_prompt": "", "classes": [8], "weights": [1.0]}


@pytest.mark.parametrize(
    ("line", "said"),
    [
        *((json.dumps(cut(ROW, key)), f"`{key}` is missing") for key in ROW),
        (json.dumps({**ROW, "key": "a/b"}), "`key` is 'a/b'"),
        (json.dumps({**ROW, "key": "a\nb"}), "`key` is 'a\\nb'"),
        (json.dumps({**ROW, "classes": "8"}), "`classes` is '8'"),
        (json.dumps({**ROW, "classes": [-1]}), "`classes.0` is -1"),
        (json.dumps({**ROW, "weights": []}), "a weight for each class"),
        (json.dumps({**ROW, "weights": [float("nan")]}), "`weights.0` is nan"),
        (json.dumps({**ROW, "parts": ["a", "b"]}), "for each part"),
        ("[1, 2]", "expected a JSON object, found list"),
        ("[" * 100_000, "nested too deeply"),
        ("{", "not JSON"),
        ('{"key": ' + "9" * 5000 + "}", "not JSON"),
        ('{"key": "\\ud800"}', "not JSON in UTF-8"),
        ("na\udcefve", "not JSON lines in UTF-8"),
    ],
    ids=range(18),
)
def test_rows_of_prompts(workspace: Path, refused: Callable[..., None], line: str, said: str) -> None:
    prompts = workspace / "data/prompts/single.jsonl"
    prompts.parent.mkdir()
    rows = [json.dumps({**ROW, "key": "single-000000"}), line]
    prompts.write_text("\n".join(rows) + "\n", encoding="utf-8", errors="surrogateescape")
    refused(said, "synthesize", "single")
    refused("data/prompts/single.jsonl", "synthesize", "single")


def test_rows_of_an_index_and_records_of_a_shard(rendered: Path, refused: Callable[..., None]) -> None:
    calibrate = ("calibrate", "single", "resnet", "--images", "rendered")
    index = rendered / "index.jsonl"
    whole = index.read_text()
    for change in ('{"classes": [1], "shard": "000000.tar"}', '{"key": "a", "classes": [1]}', "[]", "[" * 100_000):
        index.write_text(change + "\n" + whole)
        refused("index.jsonl:1: ", *calibrate)
    index.write_text(whole)
    shard = rendered / "000000.tar"
    for content in (b"[]", b"{}", b"\xff", b'{"key": 1, "classes": []}', b"[" * 50_000):
        with tarfile.open(shard, "w") as tar:
            for name, member in (("a.png", b"x"), ("a.json", content)):
                info = tarfile.TarInfo(name)
                info.size = len(member)
                tar.addfile(info, io.BytesIO(member))
        refused("000000.tar", *calibrate)


def saved(array: np.ndarray) -> bytes:
    file = io.BytesIO()
    np.save(file, array)
    return file.getvalue()


IMAGES = np.zeros((24, 32, 32, 3), np.uint8)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"not numpy",
        saved(IMAGES)[:-1],
        saved(IMAGES)[:40],
        saved(IMAGES[:0]),
        saved(IMAGES[..., 0]),
        saved(IMAGES.astype(np.float32)),
        saved(np.array([{"a": 1}], object)),
        saved(IMAGES).replace(b"(24,", b"(-4,"),
        saved(IMAGES).replace(b"(24, 32,", b"(24, 3" + b"(" * 2),
        saved(IMAGES).replace(b"(24, 32", b"(99999999999999999999999999999, 32"),
        b"PK\x05\x06" + bytes(18),
    ],
    ids=range(12),
)
def test_images_that_are_none(workspace: Path, refused: Callable[..., None], content: bytes) -> None:
    folder = workspace / "data/calibration/noise-resnet"
    folder.mkdir(parents=True)
    (folder / "images.npy").write_bytes(content)
    refused("data/calibration/noise-resnet/images.npy: ", "reconstruct", "noise", "resnet", "w2a4")
    (folder / "images.npy").unlink()
    (folder / "images.npy").mkdir()
    refused("images.npy: cannot be read (Is a directory)", "reconstruct", "noise", "resnet", "w2a4")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("classes,kept\n1,True\n", "1 images were kept, but"),
        ("classes,kept\n1,True\n1,maybe\n", "not a table of samples"),
        ("classes,kept\n1,True\nbag,True\n", "not a table of samples"),
        ("classes,kept\n1,True\n-1,True\n", "found one below 0"),
        ("a,b\n1,2\n", "not a table of samples"),
        ("", "not a table of samples"),
        ("classes,kept\n1,True,3,4\n", "were kept, but"),
        ("na\udcefve", "not a table of samples"),
    ],
)
def test_tables_that_do_not_fit_their_images(tmp_path: Path, text: str, said: str) -> None:
    (tmp_path / "images.npy").write_bytes(saved(IMAGES[:2]))
    (tmp_path / "samples.csv").write_text(text, errors="surrogateescape")
    with pytest.raises(InputError, match=r"samples\.csv: ") as error:
        read_set(tmp_path)
    assert said in str(error.value)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("stages: [1]", "expected a mapping `stages`"),
        ("stages: {s: 3}", "s: entry: Input should be a valid dictionary"),
        ("stages: {s: {outs: []}}", "s: cmd: Field required"),
        ("stages: {s: {cmd: x, outs: [{path: a}]}}", "s: outs.0.md5: Field required"),
        ("stages: {s: {cmd: x, deps: [{path: '', md5: x}]}}", "s: deps.0.path: String should match"),
        (
            "stages: {s: {cmd: x, params: {params.yaml: 3}}}",
            "s: params.params.yaml: Input should be a valid dictionary",
        ),
    ],
)
def test_a_lock_that_dvc_did_not_write(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: str, said: str
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("dvc.lock").write_text(content)
    with pytest.raises(InputError) as error:
        last_run("s")
    assert said in str(error.value)
    assert "`git checkout dvc.lock` restores it" in str(error.value)


def test_task_paths_of_other_kinds(workspace: Path, refused: Callable[..., None]) -> None:
    """A folder for a file, a file for a folder, a link to itself, a name that no file can have."""
    (workspace / "loop").symlink_to("loop")
    for value in ("world/test", "loop", "world/real.tar/below", "x" * 250 + "/y", "/dev/null"):
        edit_params(workspace / "params.yaml", **{"task.classes": value, "task.labelled": "elsewhere"})
        refused("", "prompts", "single")
