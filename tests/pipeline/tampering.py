"""Ways to tamper with a finished pipeline, each with the problems that the audit must report.

The docstring of each is its row in the table of docs/lineage.md. All act on the working directory.
"""

import json
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from safetensors.numpy import load_file, save_file

from pipeline_lib.artifacts.files import dvc_digest
from tests.conftest import edit_params
from tests.pipeline.conftest import commit, run

DATASET = Path("data/synthetic/mixup")
CALIBRATION = Path("data/calibration/mixup-resnet")
CHECKPOINT = Path("data/quantized/mixup-resnet-w2a4")
WEIGHTS = CHECKPOINT / "model.safetensors"
RECORD = Path("data/provenance/synthesize/mixup.json")
RECORD_OF_CHECKPOINT = Path("data/provenance/reconstruct/mixup-resnet-w2a4.json")
SYNTHESIZE, CALIBRATE, RECONSTRUCT = "synthesize@mixup", "calibrate@mixup-resnet", "reconstruct@mixup-resnet-w2a4"

ONE = {"mixup-resnet-w2a4"}
MIXUP = {"mixup-resnet-w4a4", "mixup-resnet-w2a4"}
ALL = MIXUP | {"noise-resnet-w4a4", "noise-resnet-w2a4"}

Report = tuple[str, str, str]  # check, status, artifact


@dataclass(frozen=True)
class Way:
    """A way to tamper: what must be reported, and the checkpoints whose verdict is no "none" any more."""

    tamper: Callable[[], None]
    reports: tuple[Report, ...]
    doubted: set[str]

    @property
    def description(self) -> str:
        return " ".join(str(self.tamper.__doc__).split()).rstrip(".")

    @property
    def row(self) -> str:
        """Its line of the table in docs/lineage.md."""
        found = "; ".join(f"{check}: {status} `{artifact}`" for check, status, artifact in self.reports)
        return f"| {self.description} | {found} |"


WAYS: list[Way] = []


def way(*reports: tuple[str, str, Path | str], doubted: set[str]) -> Callable[[Callable[[], None]], Callable[[], None]]:
    """Enter a function into WAYS."""

    def enter(tamper: Callable[[], None]) -> Callable[[], None]:
        WAYS.append(Way(tamper, tuple((check, status, str(path)) for check, status, path in reports), doubted))
        return tamper

    return enter


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


def replace(path: Path, old: str, new: str) -> None:
    text = writable(path).read_text()
    assert old in text
    path.write_text(text.replace(old, new, 1))


def dvc_commit(*stages: str) -> None:
    run(Path(), "dvc", "commit", "-f", *stages)
    commit(Path(), "by hand")


def read_lock() -> dict[str, Any]:
    return yaml.load(Path("dvc.lock").read_text(), yaml.CSafeLoader)  # PyYAML without C takes seconds


def change_lock(change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the stages of dvc.lock."""
    lock = read_lock()
    change(lock["stages"])
    text = yaml.dump(lock, Dumper=yaml.CSafeDumper, sort_keys=False, allow_unicode=True)
    Path("dvc.lock").write_text(text)


def edit_lock(change: Callable[[dict[str, Any]], Any]) -> None:
    """Change the stages of dvc.lock, and commit that."""
    change_lock(change)
    commit(Path(), "by hand")


def edit_yaml(old: str, new: str) -> None:
    replace(Path("dvc.yaml"), old, new)


def entry(stages: dict[str, Any], stage: str, field: str, path: Path | str) -> dict[str, Any]:
    (found,) = (item for item in stages[stage][field] if item["path"] == str(path))
    return found


def bless(stage: str) -> None:
    """Give dvc.lock today's digests and parameters of a stage, as `dvc commit -f` does, which takes longer."""
    params = yaml.safe_load(Path("params.yaml").read_text())

    def change(stages: dict[str, Any]) -> None:
        for item in stages[stage]["deps"] + stages[stage]["outs"]:
            item["md5"] = dvc_digest(Path(item["path"]))
        for key in stages[stage].get("params", {}).get("params.yaml", {}):
            value = params
            for part in key.split("."):
                value = value[part]
            stages[stage]["params"]["params.yaml"][key] = value

    edit_lock(change)


def edit_record(change: Callable[[dict[str, Any]], Any], path: Path = RECORD, stage: str = SYNTHESIZE) -> None:
    """Forge a record, and the digest that dvc.lock has of it."""
    record = json.loads(writable(path).read_text())
    change(record)
    path.write_text(json.dumps(record))
    bless(stage)


def edit_tensors(change: Callable[[dict[str, np.ndarray]], Any], path: Path = WEIGHTS) -> None:
    tensors = load_file(writable(path))
    change(tensors)
    save_file(tensors, path)


SHARDS = ("outs", "FAIL", DATASET)
DIRTY = ("committed", "WARN", "dvc.lock")


# Bytes on the disk


@way(SHARDS, doubted=MIXUP)
def flip_a_shard() -> None:
    """A bit of a shard flips, size and time stay."""
    flip(DATASET / "000001.tar")


@way(("cache", "FAIL", "data/prompts/mixup.jsonl"), doubted=MIXUP)
def flip_the_cache() -> None:
    """A bit of an object in DVC's cache flips."""
    found = entry(read_lock()["stages"], "prompts@mixup", "outs", "data/prompts/mixup.jsonl")
    path = Path(".dvc/cache/files/md5") / found["md5"][:2] / found["md5"][2:]
    path.chmod(0o644)
    flip(path)


@way(SHARDS, doubted=MIXUP)
def swap_shards() -> None:
    """Two shards change places."""
    one, two = (writable(DATASET / f"{number:06d}.tar") for number in (0, 1))
    one.rename("aside")
    two.rename(one)
    Path("aside").rename(two)


@way(SHARDS, doubted=MIXUP)
def edit_the_index() -> None:
    """A weight in a dataset's index is edited."""
    replace(DATASET / "index.jsonl", '"weights": [0.5, 0.5]', '"weights": [0.6, 0.4]')


@way(SHARDS, ("datasets", "FAIL", DATASET), doubted=MIXUP)
def remove_a_shard() -> None:
    """A shard is removed."""
    (DATASET / "000002.tar").unlink()


@way(SHARDS, ("datasets", "FAIL", DATASET), doubted=MIXUP)
def add_a_shard_of_real_images() -> None:
    """A shard of real images is added."""
    shutil.copy("world/real.tar", DATASET / "000099.tar")


@way(("outs", "FAIL", "data/prompts/mixup.jsonl"), doubted=MIXUP)
def a_folder_for_a_file() -> None:
    """A folder stands where a file was written."""
    Path("data/prompts/mixup.jsonl").unlink()
    Path("data/prompts/mixup.jsonl").mkdir()


@way(("sources and code", "FAIL", "world/generator"), doubted=MIXUP)
def replace_the_generator() -> None:
    """The generator's weights are others."""
    path = Path("world/generator/unet/diffusion_pytorch_model.safetensors")
    weights = load_file(path)
    save_file({name: value * 1.01 for name, value in weights.items()}, path, {"format": "pt"})


@way(("sources and code", "FAIL", "world/generator"), doubted=MIXUP)
def remove_the_generator() -> None:
    """The generator is removed."""
    shutil.rmtree("world/generator")


@way(("sources and code", "FAIL", "world/classifiers/resnet"), doubted=ALL)
def edit_a_classifier() -> None:
    """A classifier's card is edited."""
    replace(Path("world/classifiers/resnet/model.json"), "bicubic", "bilinear")


@way(("outs", "FAIL", RECORD), ("records", "FAIL", RECORD), doubted=MIXUP)
def delete_a_record() -> None:
    """A record is deleted."""
    RECORD.unlink()


@way(("outs", "FAIL", RECORD), doubted=MIXUP)
def edit_a_record() -> None:
    """A record is edited, dvc.lock is not."""
    replace(RECORD, '"git_clean": true', '"git_clean": false')


@way(("outs", "FAIL", CHECKPOINT), ("checkpoints", "FAIL", WEIGHTS), doubted=ONE)
def break_a_step() -> None:
    """A step of a checkpoint becomes negative."""
    edit_tensors(lambda tensors: tensors.update({"conv1.step": -tensors["conv1.step"]}))


# Committed by hand: dvc.lock has the new digests


@way(
    ("records", "FAIL", DATASET),
    ("links", "FAIL", DATASET),
    ("datasets", "FAIL", DATASET / "index.jsonl"),
    ("calibration sets", "FAIL", CALIBRATION / "samples.csv"),
    doubted=MIXUP,
)
def drop_a_line_and_commit() -> None:
    """A line of a dataset's index is removed; `dvc commit -f`."""
    path = writable(DATASET / "index.jsonl")
    path.write_text("\n".join(path.read_text().splitlines()[:-1]) + "\n")
    dvc_commit(SYNTHESIZE)


@way(("records", "FAIL", CALIBRATION), doubted=MIXUP)
def real_images_in_a_calibration_set() -> None:
    """Real images replace those of a calibration set; `dvc commit -f`."""
    images = np.load(writable(CALIBRATION / "images.npy"))
    np.save(CALIBRATION / "images.npy", np.random.default_rng(5).integers(0, 256, images.shape, dtype=np.uint8))
    dvc_commit(CALIBRATE)


@way(("records", "FAIL", CALIBRATION), ("inputs", "FAIL", CALIBRATION), doubted=MIXUP)
def real_images_all_the_way() -> None:
    """The same, and the stage that reads them is committed as well."""
    real_images_in_a_calibration_set()
    dvc_commit(RECONSTRUCT)
    bless("reconstruct@mixup-resnet-w4a4")


@way(("records", "FAIL", DATASET), doubted=MIXUP)
def real_shard_in_a_dataset() -> None:
    """Real images replace a shard; committed."""
    path = writable(DATASET / "000000.tar")
    shutil.copy("world/real.tar", path)
    bless(SYNTHESIZE)


@way(("records", "FAIL", CHECKPOINT), doubted=ONE)
def change_a_weight() -> None:
    """A weight of a checkpoint changes; committed."""
    name = next(name for name in load_file(WEIGHTS) if name.endswith(".integers"))
    edit_tensors(lambda tensors: tensors[name].__setitem__(0, tensors[name][0] ^ 1))
    bless(RECONSTRUCT)


@way(("records", "FAIL", CHECKPOINT), doubted=ONE)
def a_checkpoint_of_another_source() -> None:
    """A checkpoint is replaced by that of another source; committed."""
    shutil.rmtree(CHECKPOINT)
    shutil.copytree("data/quantized/noise-resnet-w2a4", CHECKPOINT)
    bless(RECONSTRUCT)


@way(("inputs", "FAIL", "world/generator"), doubted=MIXUP)
def change_an_input_and_commit() -> None:
    """The generator changes; `dvc commit -f` of the stages that read it."""
    replace_the_generator()
    dvc_commit(SYNTHESIZE, "prompts@mixup")


@way(("inputs", "FAIL", "data/fashion/classes.csv"), doubted=ALL)
def change_the_classes_and_commit() -> None:
    """The class list changes; committed."""
    path = Path("data/fashion/classes.csv")
    path.write_text(path.read_text() + "\n")
    for stage in ("prompts@mixup", "prompts@single", "evaluate-float@resnet"):
        bless(stage)


@way(("values", "FAIL", "params.yaml: synthesize"), doubted=MIXUP)
def change_a_parameter_and_commit() -> None:
    """A parameter changes; committed."""
    edit_params(Path("params.yaml"), **{"synthesize.seed": 9})
    bless(SYNTHESIZE)


@way(("modules", "FAIL", "stages/synthesize.py"), doubted=MIXUP)
def change_a_module_and_commit() -> None:
    """A module changes; committed."""
    replace(Path("stages/synthesize.py"), "import", "# a line\nimport")
    bless(SYNTHESIZE)


@way(("modules", "FAIL", "pipeline_lib/synthesis"), doubted=MIXUP)
def change_a_room_and_commit() -> None:
    """A module of a folder that is a dependency as a whole changes; committed, and taken back on the disk."""
    path = Path("pipeline_lib/synthesis/plan.py")
    content = path.read_bytes()
    path.write_bytes(content + b"# a line\n")
    bless(SYNTHESIZE)
    path.write_bytes(content)
    commit(Path(), "as before")


# Records


def copy_record(source: str) -> None:
    RECORD_OF_CHECKPOINT.unlink()
    shutil.copy(f"data/provenance/{source}.json", RECORD_OF_CHECKPOINT)
    bless(RECONSTRUCT)


@way(("records", "FAIL", RECORD_OF_CHECKPOINT), ("records", "FAIL", CHECKPOINT), doubted=ONE)
def a_record_of_another_run() -> None:
    """A record is replaced by that of another run; committed."""
    copy_record("reconstruct/noise-resnet-w2a4")


@way(("records", "FAIL", RECORD_OF_CHECKPOINT), ("records", "FAIL", CHECKPOINT), doubted=ONE)
def a_record_of_another_stage() -> None:
    """A record is replaced by that of another stage; committed."""
    copy_record("calibrate/mixup-resnet")


@way(("records", "FAIL", RECORD), doubted=MIXUP)
def another_command_in_a_record() -> None:
    """A record has another command; committed."""
    edit_record(lambda record: record.update(cmd="python -m stages.synthesize real"))


@way(("records", "FAIL", RECORD), doubted=MIXUP)
def another_name_in_a_record() -> None:
    """A record names another stage of DVC; committed."""
    edit_record(lambda record: record.update(dvc_stage="synthesize@single"))


@way(("records", "FAIL", DATASET), doubted=MIXUP)
def a_record_without_an_out() -> None:
    """A record lacks an out; committed."""
    edit_record(lambda record: record.update(outs={}))


@way(("records", "FAIL", "data/preview/noise"), doubted=MIXUP)
def a_record_with_an_out_too_many() -> None:
    """A record has an out that dvc.lock lacks; committed."""
    edit_record(lambda record: record["outs"].update({"data/preview/noise": "0" * 32}))


@way(("records", "FAIL", RECORD), doubted=MIXUP)
def a_record_that_is_no_json() -> None:
    """A record is no JSON; committed."""
    writable(RECORD).write_text("{")
    bless(SYNTHESIZE)


@way(("records", "FAIL", RECORD), doubted=MIXUP)
def a_record_of_bytes() -> None:
    """A record is no text; committed."""
    writable(RECORD).write_bytes(b"\xff\x00\xfe")
    bless(SYNTHESIZE)


@way(("records", "FAIL", RECORD), doubted=MIXUP)
def a_record_without_end() -> None:
    """A record is nested a hundred thousand levels deep; committed."""
    writable(RECORD).write_text('{"a":' * 100_000)
    bless(SYNTHESIZE)


@way(("records", "FAIL", RECORD), doubted=MIXUP)
def a_record_of_an_older_format() -> None:
    """A record is of an older format; committed."""
    edit_record(lambda record: record.pop("format"))


@way(("records", "FAIL", RECORD), doubted=MIXUP)
def a_record_without_kinds() -> None:
    """A record has digests of inputs, but no kinds; committed."""
    edit_record(lambda record: [entry.pop("kind") for entry in record["inputs"].values()])


@way(("commits", "FAIL", RECORD), doubted=MIXUP)
def a_commit_that_is_gone() -> None:
    """A record names a commit that git has not; committed."""
    edit_record(lambda record: record.update(git_commit="0" * 39 + "1"))


@way(("records", "FAIL", RECORD), doubted=MIXUP)
def a_commit_that_is_an_option() -> None:
    """A record has an option of git for a commit; committed."""
    edit_record(lambda record: record.update(git_commit="--help"))


@way(("records", "FAIL", RECORD), doubted=MIXUP)
def a_foreign_module() -> None:
    """A module from elsewhere ran, such as one of PYTHONPATH."""
    edit_record(lambda record: record.update(foreign_code=["/tmp/sitecustomize.py"]))


@way(("modules", "FAIL", "pipeline_lib/report/page.py"), doubted=MIXUP)
def an_undeclared_module_ran() -> None:
    """A module of the project ran that dvc.lock does not have."""
    edit_record(lambda record: record["code"].update({"pipeline_lib/report/page.py": "0" * 32}))


@way(("modules", "FAIL", "pipeline_lib/synthesis/planted.py"), doubted=MIXUP)
def a_planted_module_ran() -> None:
    """A module ran in a folder that is a dependency as a whole, and is there no more."""
    edit_record(lambda record: record["code"].update({"pipeline_lib/synthesis/planted.py": "0" * 32}))


@way(("modules", "FAIL", "pipeline_lib/__init__.py"), ("commits", "FAIL", "pipeline_lib/__init__.py"), doubted=MIXUP)
def another_package_file_ran() -> None:
    """An `__init__.py` that no dependency holds ran with other bytes than the disk and the commit have."""
    edit_record(lambda record: record["code"].update({"pipeline_lib/__init__.py": "0" * 32}))


@way(("kinds", "FAIL", "world/generator"), doubted=MIXUP)
def an_unknown_kind() -> None:
    """A record has a source of an unknown kind; committed."""
    edit_record(lambda record: record["inputs"]["world/generator"].update(kind="pictures"))


@way(("kinds", "FAIL", "world/generator"), doubted=MIXUP)
def made_by_nobody() -> None:
    """A record calls a source the out of a stage, but no stage wrote it; committed."""
    edit_record(lambda record: record["inputs"]["world/generator"].update(kind="made"))


@way(("kinds", "FAIL", "world/generator"), doubted=MIXUP)
def two_kinds_of_one_path() -> None:
    """Two records give one path two kinds; committed."""
    edit_record(lambda record: record["inputs"]["world/generator"].update(kind="text"))


@way(("kinds", "FAIL", "world/generator"), ("kinds", "FAIL", "world/test"), doubted=MIXUP)
def the_bytes_of_another_kind() -> None:
    """A source has the digest of the labelled images, but another kind; committed."""
    labelled = json.loads(Path("data/provenance/evaluate/float-resnet.json").read_text())["inputs"]["world/test"]
    edit_record(lambda record: record["inputs"]["world/generator"].update(digest=labelled["digest"]))


@way(("kinds", "FAIL", "world/generator"), doubted=MIXUP)
def overlapping_paths_of_the_task() -> None:
    """`task.real` of params.yaml lies in the generator's folder."""
    edit_params(Path("params.yaml"), **{"task.real": "world/generator/real.tar"})


@way(("inputs", "FAIL", "world/generator"), doubted=MIXUP)
def a_record_without_an_input() -> None:
    """A record lacks an input that dvc.lock has; committed."""
    edit_record(lambda record: record["inputs"].pop("world/generator"))


@way(("inputs", "FAIL", "world/real.tar"), doubted=MIXUP)
def a_record_with_real_images() -> None:
    """A stage recorded that it read real images; dvc.lock and dvc.yaml do not have them."""
    edit_record(lambda r: r["inputs"].update({"world/real.tar": {"digest": "0" * 32, "kind": "real images"}}))


@way(("values", "FAIL", "params.yaml: reconstruct"), doubted=MIXUP)
def an_undeclared_section() -> None:
    """A stage recorded that it read a section of params.yaml that it does not declare."""
    edit_record(lambda record: record["params"].update(reconstruct={"seed": 0}))


# dvc.yaml and dvc.lock


@way(("links", "FAIL", DATASET), doubted=MIXUP)
def edit_a_dependency_of_the_lock() -> None:
    """A digest of a dependency is edited in dvc.lock."""
    edit_lock(lambda stages: entry(stages, CALIBRATE, "deps", DATASET).update(md5="0" * 32 + ".dir"))


@way(("records", "FAIL", CHECKPOINT), DIRTY, doubted=ONE)
def edit_an_out_of_the_lock() -> None:
    """A checkpoint changes, and its digest in dvc.lock; not committed."""
    flip(WEIGHTS)
    change_lock(lambda stages: entry(stages, RECONSTRUCT, "outs", CHECKPOINT).update(md5=dvc_digest(CHECKPOINT)))


def drop_dependency(stages: dict[str, Any]) -> None:
    stages[CALIBRATE]["deps"].remove(entry(stages, CALIBRATE, "deps", DATASET))


@way(("declared", "FAIL", DATASET), ("inputs", "FAIL", DATASET), doubted=MIXUP)
def a_dependency_less_in_the_lock() -> None:
    """A dependency is removed from dvc.lock."""
    edit_lock(drop_dependency)


@way(("declared", "FAIL", DATASET), doubted=MIXUP)
def a_dependency_less_in_the_yaml() -> None:
    """A dependency is removed from dvc.yaml."""
    edit_yaml('deps: ["data/synthetic/${item.source}", ', "deps: [")


@way(("inputs", "FAIL", DATASET), doubted=MIXUP)
def a_dependency_less_in_both() -> None:
    """A dependency is removed from both."""
    a_dependency_less_in_the_yaml()
    edit_lock(drop_dependency)


@way(("declared", "FAIL", "world/real.tar"), doubted=MIXUP)
def a_dependency_more_in_the_yaml() -> None:
    """Real images are added to a stage's dependencies in dvc.yaml."""
    edit_yaml('deps: ["data/synthetic/${item.source}", ', 'deps: ["${task.real}", "data/synthetic/${item.source}", ')


@way(("declared", "FAIL", "params.yaml: synthesize"), doubted=MIXUP)
def a_parameter_less_in_the_yaml() -> None:
    """A parameter is removed from dvc.yaml."""
    edit_yaml("params: [synthesize]", "params: []")


@way(("declared", "FAIL", "params.yaml: synthesize"), ("values", "FAIL", "params.yaml: synthesize"), doubted=MIXUP)
def a_parameter_less_in_the_lock() -> None:
    """A parameter is removed from dvc.lock."""
    edit_lock(lambda stages: stages[SYNTHESIZE].pop("params"))


@way(("declared", "FAIL", SYNTHESIZE), doubted=MIXUP)
def a_stage_less_in_the_yaml() -> None:
    """A stage is removed from dvc.yaml."""
    edit_yaml('matrix: {recipe: "${axes.recipes}"}', "matrix: {recipe: []}")


@way(("finished", "FAIL", SYNTHESIZE), ("kinds", "FAIL", DATASET), doubted=MIXUP)
def a_stage_less_in_the_lock() -> None:
    """A stage is removed from dvc.lock."""
    edit_lock(lambda stages: stages.pop(SYNTHESIZE))


@way(("kinds", "FAIL", DATASET), doubted=MIXUP)
def a_stage_less_in_both() -> None:
    """A stage is removed from both."""
    a_stage_less_in_the_yaml()
    edit_lock(lambda stages: stages.pop(SYNTHESIZE))


@way(("declared", "FAIL", SYNTHESIZE), doubted=MIXUP)
def another_command_in_the_yaml() -> None:
    """dvc.yaml has another command."""
    edit_yaml("cmd: python -m stages.synthesize ${item.recipe}", "cmd: python -m stages.synthesize ${item.recipe} x")


@way(("declared", "FAIL", SYNTHESIZE), ("records", "FAIL", RECORD), doubted=MIXUP)
def another_command_in_the_lock() -> None:
    """dvc.lock has another command."""
    edit_lock(lambda stages: stages[SYNTHESIZE].update(cmd="python -m stages.synthesize real"))


@way(("records", "FAIL", RECORD), doubted=MIXUP)
def another_command_in_both() -> None:
    """Both have another command."""
    another_command_in_the_yaml()
    edit_lock(lambda stages: stages[SYNTHESIZE].update(cmd="python -m stages.synthesize mixup x"))


@way(("dvc.lock", "FAIL", SYNTHESIZE), doubted=ALL)
def a_lock_without_a_digest() -> None:
    """An entry of dvc.lock lacks a digest."""
    edit_lock(lambda stages: stages[SYNTHESIZE]["deps"][0].pop("md5"))


@way(("dvc.lock", "FAIL", SYNTHESIZE), doubted=ALL)
def a_lock_with_a_list() -> None:
    """An entry of dvc.lock is a list."""
    edit_lock(lambda stages: stages.update({SYNTHESIZE: ["cmd"]}))


@way(("dvc.lock", "FAIL", SYNTHESIZE), doubted=ALL)
def a_lock_with_two_digests() -> None:
    """An entry of dvc.lock has a path with two digests."""
    edit_lock(lambda s: s[SYNTHESIZE]["deps"].append({"path": "world/generator", "md5": "0" * 32, "hash": "md5"}))


@way(("dvc.lock", "FAIL", CALIBRATE), ("inputs", "FAIL", CALIBRATION), doubted=ALL)
def a_cycle() -> None:
    """A stage of dvc.lock depends on its own out."""
    edit_lock(lambda stages: stages[CALIBRATE]["deps"].append({"path": str(CALIBRATION), "md5": "0" * 32 + ".dir"}))


@way(("dvc.lock", "FAIL", CALIBRATION), doubted=ALL)
def two_writers_of_one_path() -> None:
    """A second stage of dvc.lock writes a calibration set."""
    out = {"path": str(CALIBRATION), "md5": "0" * 32 + ".dir"}
    edit_lock(lambda stages: stages["calibrate-noise@noise-resnet"]["outs"].append(out))


@way(
    ("names", "FAIL", "calibr\u0430te@mixup-resnet"),
    ("records", "FAIL", "data/provenance/calibrate/mixup-resnet.json"),
    doubted=MIXUP,
)
def a_letter_that_looks_alike() -> None:
    """The name of a stage has a Cyrillic letter in dvc.yaml and dvc.lock."""
    edit_yaml("  calibrate: &calibrate", "  calibr\u0430te: &calibrate")
    edit_lock(lambda stages: stages.update({"calibr\u0430te@mixup-resnet": stages.pop(CALIBRATE)}))


@way(("names", "FAIL", "data/calibr\u0430tion/mixup-resnet"), ("kinds", "FAIL", CALIBRATION), doubted=MIXUP)
def an_out_that_looks_alike() -> None:
    """The path of an out has a Cyrillic letter in dvc.lock."""
    path = "data/calibr\u0430tion/mixup-resnet"
    edit_lock(lambda stages: entry(stages, CALIBRATE, "outs", CALIBRATION).update(path=path))


# Contents, committed


def bless_dataset(content: bytes) -> None:
    writable(DATASET / "index.jsonl").write_bytes(content)
    bless(SYNTHESIZE)


INDEX = ("datasets", "FAIL", DATASET / "index.jsonl")


@way(INDEX, doubted=MIXUP)
def an_index_that_is_no_json() -> None:
    """A line of an index is no JSON; committed."""
    bless_dataset(b"{\n")


@way(INDEX, doubted=MIXUP)
def an_index_of_numbers() -> None:
    """A line of an index is a number; committed."""
    bless_dataset(b"17\n")


@way(INDEX, doubted=MIXUP)
def an_index_of_bytes() -> None:
    """An index is no text; committed."""
    bless_dataset(b"\xff\xfe\n")


def bless_calibration(name: str, content: bytes) -> None:
    writable(CALIBRATION / name).write_bytes(content)
    bless(CALIBRATE)


@way(("calibration sets", "FAIL", CALIBRATION / "images.npy"), doubted=MIXUP)
def images_cut_short() -> None:
    """A calibration set's images are cut short; committed."""
    bless_calibration("images.npy", (CALIBRATION / "images.npy").read_bytes()[:-1])


@way(("calibration sets", "FAIL", CALIBRATION / "images.npy"), doubted=MIXUP)
def images_without_a_header() -> None:
    """A calibration set's images have no header; committed."""
    bless_calibration("images.npy", b"\x93NUMPY\x01\x00\x05\x00{((((")


@way(("calibration sets", "FAIL", CALIBRATION / "images.npy"), doubted=MIXUP)
def other_images_than_rows() -> None:
    """A calibration set has fewer images than rows; committed."""
    path = writable(CALIBRATION / "images.npy")
    np.save(path, np.load(path)[1:])
    bless(CALIBRATE)


@way(("calibration sets", "FAIL", CALIBRATION / "samples.csv"), doubted=MIXUP)
def a_table_without_columns() -> None:
    """A calibration set's table lacks a column; committed."""
    bless_calibration("samples.csv", b"one,two\n1,2\n")


@way(("calibration sets", "FAIL", CALIBRATION / "samples.csv"), doubted=MIXUP)
def a_table_of_bytes() -> None:
    """A calibration set's table is no text; committed."""
    bless_calibration("samples.csv", b"key,kept\n\xff\xfe,True\n")


@way(("calibration sets", "FAIL", CALIBRATION / "samples.csv"), doubted=MIXUP)
def a_stranger_among_the_samples() -> None:
    """A sample of a calibration set is of no dataset."""
    replace(CALIBRATION / "samples.csv", "mixup-000003", "mixup-999999")


def bless_weights(content: bytes) -> None:
    writable(WEIGHTS).write_bytes(content)
    bless(RECONSTRUCT)


IN_CHECKPOINT = ("checkpoints", "FAIL", WEIGHTS)


@way(IN_CHECKPOINT, doubted=ONE)
def weights_cut_short() -> None:
    """A checkpoint's file is cut short; committed."""
    bless_weights(WEIGHTS.read_bytes()[:-1])


@way(IN_CHECKPOINT, doubted=ONE)
def a_header_of_rubbish() -> None:
    """The header of a checkpoint's file is rubbish; committed."""
    bless_weights(b"\xff" * 64)


@way(IN_CHECKPOINT, doubted=ONE)
def a_tensor_of_one_byte() -> None:
    """A checkpoint's integers are cut to one byte, the header says so; committed."""
    edit_tensors(lambda tensors: tensors.update({"conv1.integers": tensors["conv1.integers"][:1]}))
    bless(RECONSTRUCT)


@way(IN_CHECKPOINT, doubted=ONE)
def a_tensor_less() -> None:
    """A checkpoint lacks a tensor; committed."""
    edit_tensors(lambda tensors: tensors.pop("conv1.step"))
    bless(RECONSTRUCT)


def spoil(tensors: dict[str, np.ndarray], value: float) -> None:
    name = next(name for name, tensor in sorted(tensors.items()) if name.endswith("bias") and tensor.size)
    tensors[name][0] = value


@way(IN_CHECKPOINT, doubted=ONE)
def not_a_number() -> None:
    """A bias of a checkpoint is not a number; committed."""
    edit_tensors(lambda tensors: spoil(tensors, np.nan))
    bless(RECONSTRUCT)


@way(("checkpoints", "FAIL", CHECKPOINT / "nearest.safetensors"), doubted=ONE)
def an_infinite_number() -> None:
    """A bias of the network rounded to nearest is infinite; committed."""
    edit_tensors(lambda tensors: spoil(tensors, np.inf), CHECKPOINT / "nearest.safetensors")
    bless(RECONSTRUCT)


@way(IN_CHECKPOINT, doubted=ONE)
def a_description_cut_short() -> None:
    """A checkpoint's quantization.json is cut short; committed."""
    path = writable(CHECKPOINT / "quantization.json")
    path.write_bytes(path.read_bytes()[:100])
    bless(RECONSTRUCT)


# What is no fault yet: warnings


@way(("frozen", "WARN", "prompts@mixup"), doubted=set())
def freeze() -> None:
    """A stage is frozen."""
    edit_yaml("    do:\n", "    do:\n      frozen: true\n")


@way(("frozen", "WARN", SYNTHESIZE), ("parameters", "FAIL", "params.yaml: synthesize"), doubted=MIXUP)
def freeze_and_change() -> None:
    """A stage is frozen, and its parameters change."""
    edit_yaml("  synthesize:\n", "  synthesize:\n    frozen: true\n")
    edit_params(Path("params.yaml"), **{"synthesize.seed": 9})


@way(("imports", "FAIL", "pipeline_lib/synthesis/plan.py"), doubted=MIXUP)
def import_an_undeclared_module() -> None:
    """A stage's script imports a module that it does not declare."""
    path = Path("stages/prompts.py")
    path.write_text(path.read_text() + "\nimport pipeline_lib.synthesis.plan\n")


@way(("imports", "FAIL", "stages/prompts.py"), doubted=MIXUP)
def break_the_syntax() -> None:
    """A stage's script is no Python any more."""
    Path("stages/prompts.py").write_text("def (\n")


@way(("sources and code", "WARN", "pipeline_lib/prompts"), doubted=set())
def change_code() -> None:
    """Code changes after the run."""
    path = Path("pipeline_lib/prompts/strategies.py")
    path.write_text(path.read_text() + "# a line\n")


@way(("modules", "WARN", "pipeline_lib/__init__.py"), doubted=set())
def change_a_package_file() -> None:
    """An `__init__.py` that no dependency holds changes after the run."""
    path = Path("pipeline_lib/__init__.py")
    path.write_text(path.read_text() + "# a line\n")


@way(("parameters", "WARN", "params.yaml: reconstruct"), doubted=set())
def change_a_parameter() -> None:
    """A parameter changes after the run."""
    edit_params(Path("params.yaml"), **{"reconstruct.seed": 3})


@way(("environment", "WARN", "diffusers"), doubted=set())
def another_package() -> None:
    """Another version of a package ran than is installed."""
    edit_record(lambda record: record["packages"].update(diffusers="0.1"))


@way(("devices", "WARN", SYNTHESIZE), doubted=set())
def two_devices() -> None:
    """A dataset was rendered on two kinds of devices."""
    edit_record(lambda record: record.update(devices={"cpu": 4, "NVIDIA H100": 2}))


@way(("devices", "WARN", "operators of cpu"), doubted=set())
def two_builds_of_the_operators() -> None:
    """Two stages loaded different builds of the compiled operators."""
    edit_record(lambda r: r.update(operators={"cpu": "0" * 64}), RECORD_OF_CHECKPOINT, RECONSTRUCT)


@way(("commits", "WARN", "stages/synthesize.py"), doubted=set())
def edits_that_no_commit_has() -> None:
    """A stage ran with edits that its commit lacks, and recorded so."""
    edit_record(lambda record: record.update(git_clean=False, git_commit=root_commit()))


def root_commit() -> str:
    """A commit that has no code."""
    who = ("-c", "user.name=t", "-c", "user.email=t@t")
    return run(Path(), "git", *who, "commit-tree", EMPTY_TREE, "-m", "no code").strip()


EMPTY_TREE = "4b825dc642cb6eb9a060e54bf8d69288fbee4904"  # git's name of a tree without files
