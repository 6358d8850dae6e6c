"""Real `dvc repro`: an edit of code that changes no pixel renders no image; a forced run renders all of them."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from pipeline_lib.artifacts.records import read_json
from tests.conftest import edit_params
from tests.pipeline.conftest import outs, repro, run

STAGE, IMAGES = "synthesize@mixup", 24
DATASET = Path("data/synthetic/mixup")


@pytest.fixture
def clone(finished: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(finished, tmp_path / "repository", symlinks=True))


def rendered(clone: Path) -> int:
    return int(read_json(clone / "data/provenance/synthesize/mixup.json")["images_rendered_in_this_run"])


def shards(clone: Path) -> dict[str, dict[str, object]]:
    return dict(read_json(clone / "data/provenance/synthesize/mixup.json")["shards"])


def add_a_comment(clone: Path) -> None:
    path = clone / "pipeline_lib/synthesis/worker.py"
    path.write_text(path.read_text() + "# a comment\n")


def spell_out_a_default(clone: Path) -> None:
    """A parameter more, which says what is done anyway."""
    path = clone / "pipeline_lib/params/synthesize.py"
    path.write_text(path.read_text() + "    knob: int = 0\n")
    assert STAGE in repro(clone, STAGE)
    edit_params(clone / "params.yaml", **{"synthesize.knob": 0})


def rename_a_module(clone: Path) -> None:
    for path in (clone / "pipeline_lib").rglob("*.py"):
        path.write_text(path.read_text().replace("synthesis.defects", "synthesis.faults"))
    (clone / "pipeline_lib/synthesis/defects.py").rename(clone / "pipeline_lib/synthesis/faults.py")


@pytest.mark.parametrize(
    ("edit", "finished_work"),
    [(add_a_comment, "kept"), (add_a_comment, "removed"), (spell_out_a_default, "removed"), (rename_a_module, "kept")],
)
def test_an_edit_that_changes_no_pixel_renders_nothing(
    clone: Path, edit: Callable[[Path], None], finished_work: str
) -> None:
    assert rendered(clone) == IMAGES
    before, facts = outs(clone, STAGE), shards(clone)
    edit(clone)
    if finished_work == "removed":
        shutil.rmtree(clone / ".work")
    assert repro(clone, STAGE) == {STAGE}
    assert rendered(clone) == 0
    assert outs(clone, STAGE) == before
    assert shards(clone) == facts, "what was recorded of each shard's rendering is kept"


def test_a_forced_run_renders_everything(clone: Path) -> None:
    before = outs(clone, STAGE)
    add_a_comment(clone)
    assert repro(clone, STAGE) == {STAGE}
    assert rendered(clone) == 0
    for finished_work in ("kept", "removed"):
        if finished_work == "removed":
            shutil.rmtree(clone / ".work")
        run(clone, "dvc", "repro", "--force", "--single-item", STAGE)
        assert rendered(clone) == IMAGES
        assert outs(clone, STAGE) == before


def test_a_raised_version_renders_everything(clone: Path) -> None:
    path = clone / "pipeline_lib/synthesis/version.py"
    path.write_text(path.read_text().replace("VERSION = ", "VERSION = 1000 + "))
    assert repro(clone, STAGE) == {STAGE}
    assert rendered(clone) == IMAGES


def test_an_edit_that_changes_no_integer_reconstructs_nothing_unless_it_is_forced(clone: Path) -> None:
    stage, record = "reconstruct@mixup-resnet-w2a4", clone / "data/provenance/reconstruct/mixup-resnet-w2a4.json"
    before, units = outs(clone, stage), read_json(record)["units"]
    path = clone / "pipeline_lib/quantization/ranges.py"
    path.write_text(path.read_text() + "# a comment\n")
    assert repro(clone, stage) >= {stage}
    assert read_json(record)["units"] == units, "with the times of the run that reconstructed them"
    assert outs(clone, stage) == before
    run(clone, "dvc", "repro", "--force", "--single-item", stage)
    assert read_json(record)["units"] != units
    assert outs(clone, stage) == before
