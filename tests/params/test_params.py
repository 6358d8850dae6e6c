"""params.yaml: every mistake is one line that names file, key, value and what is allowed."""

from pathlib import Path

import pytest
import yaml

from pipeline_lib.errors import InputError
from pipeline_lib.params.base import read
from pipeline_lib.params.everything import read_everything
from pipeline_lib.params.prompts import Recipe
from pipeline_lib.params.synthesize import Synthesize
from tests.conftest import ROOT, edit_params

PRESETS = ROOT / "pipeline_lib/presets"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    copy = tmp_path / "params.yaml"
    copy.write_text((ROOT / "params.yaml").read_text())
    return copy


@pytest.mark.parametrize("preset", sorted(PRESETS.glob("*.yaml")), ids=lambda p: p.stem)
def test_presets_are_valid(preset: Path) -> None:
    read_everything(preset)


def test_the_study_quantizes_as_the_default_does() -> None:
    default, study = (yaml.safe_load((PRESETS / f"{name}.yaml").read_text()) for name in ("default", "study"))
    for params in (default, study):
        del params["axes"], params["study"]["axes"], params["reconstruct"]["held_out"], params["evaluate"]["fraction"]
        for recipe in params["prompts"].values():
            del recipe["count"]
    assert study == default


def test_params_file_is_the_default_preset() -> None:
    assert (ROOT / "params.yaml").read_text() == (PRESETS / "default.yaml").read_text()


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("synthesize.stepz", 3, "unknown key `synthesize.stepz`"),
        ("synthesize.steps", "12", "`synthesize.steps` is '12'"),
        ("synthesize.steps", 0, "greater than or equal to 1"),
        ("synthesize.dtype", "float64", "'float32', 'float16' or 'bfloat16'"),
        ("prompts.mixup.classes_per_prompt", 1, "mixup 2 or more"),
        ("prompts.single.templates", ["no place"], "exactly one {}"),
        ("precisions.w2a4.weight_bits", 1, "greater than or equal to 2"),
        ("axes.sources", ["noise"], "sources must be recipes, noise, distilled, real"),
        ("axes.precisions", ["w9a9"], "axes.precisions names w9a9"),
        ("treatments.filtered.energy", 1.0, "less than 1"),
        ("treatments.filtered.mix", "blend", "'none', 'mixup' or 'cutmix'"),
        ("axes.treatments", ["sharpened"], "axes.treatments names sharpened, absent from `treatments`"),
        ("study.axes.recipes", ["mixup3"], "names mixup3, absent from `axes.recipes`"),
        ("study.axes.comparison", ["comparison"], "baseline is 'single'"),
        ("study.cells.images", 800, "more than the 768 of a block"),
        ("distil.batch_size", 1, "greater than or equal to 2"),
        ("runtime.device", "tpu", "'auto', 'cpu' or 'cuda'"),
    ],
)
def test_mistakes(path: Path, key: str, value: object, said: str) -> None:
    edit_params(path, **{key: value})
    with pytest.raises(InputError) as error:
        read_everything(path)
    assert said in str(error.value)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_missing_key_section_and_file(path: Path) -> None:
    content = yaml.safe_load(path.read_text())
    del content["synthesize"]["steps"]
    path.write_text(yaml.safe_dump(content))
    with pytest.raises(InputError, match=r"missing key `synthesize.steps`"):
        read(Synthesize, "synthesize", path)
    with pytest.raises(InputError, match=r"no key `prompts.triple`; there is .*single"):
        read(Recipe, "prompts.triple", path)
    with pytest.raises(InputError, match="preset default"):
        read(Synthesize, "synthesize", path.with_name("absent.yaml"))
    path.write_text("a: [1")
    with pytest.raises(InputError, match="not valid YAML"):
        read(Synthesize, "synthesize", path)
