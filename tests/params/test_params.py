"""params.yaml: every mistake is one line that names file, key, value and what is allowed."""

from pathlib import Path

import pytest
import yaml

from pipeline_lib.errors import InputError
from pipeline_lib.params.base import read
from pipeline_lib.params.everything import preset, preset_names, read_everything, read_preset
from pipeline_lib.params.reconstruct import Method
from pipeline_lib.params.synthesize import Synthesize
from tests.conftest import ROOT, edit_params


@pytest.fixture
def path(tmp_path: Path) -> Path:
    copy = tmp_path / "params.yaml"
    copy.write_text((ROOT / "params.yaml").read_text())
    return copy


@pytest.mark.parametrize("name", preset_names())
def test_presets_are_valid_and_commented(name: str, path: Path) -> None:
    text = preset(name)
    path.write_text(text)
    assert read_everything(path) == read_preset(name)
    assert f"# Preset `{name}`" in text
    assert "# of the rounding regulariser" in text


def test_numbers_are_those_of_yaml_1_2_as_dvc_writes_them(path: Path) -> None:
    path.write_text(path.read_text().replace("learning_rate_bias: 2.0e-3", "learning_rate_bias: 1e-5"))
    assert read(Method, "methods.tuned", path).learning_rate_bias == 1e-5


def test_the_study_quantizes_as_the_default_does() -> None:
    default, study = read_preset("default"), read_preset("study")
    assert study.methods == default.methods and study.precisions == default.precisions
    assert study.synthesize == default.synthesize
    assert study.reconstruct.model_copy(update={"held_out": default.reconstruct.held_out}) == default.reconstruct


def test_params_file_is_the_default_preset() -> None:
    assert (ROOT / "params.yaml").read_text() == preset("default")


@pytest.mark.parametrize(
    ("key", "value", "said"),
    [
        ("synthesize.stepz", 3, "unknown key `synthesize.stepz`"),
        ("synthesize.steps", "12", "`synthesize.steps` is '12'"),
        ("synthesize.steps", 0, "greater than or equal to 1"),
        ("synthesize.dtype", "float64", "'float32', 'float16' or 'bfloat16'"),
        ("prompts.mixup.classes_per_prompt", 1, "`prompts.mixup.classes_per_prompt` is 1; input should be greater"),
        ("prompts.single.pairs", "similar", "unknown key `prompts.single.pairs`"),
        ("prompts.single.strategy", "double", "`prompts.single.strategy` is 'double'; expected one of 'single'"),
        ("prompts.mixup", {"reads": "x", "count": 1}, "missing key `prompts.mixup.strategy`"),
        ("prompts.mixup", {"strategy": "mixup", "reads": "x"}, "missing key `prompts.mixup.count`"),
        ("reconstruct.methods", {"cnn": "adaround"}, "reconstruct.methods names adaround, absent from `methods`"),
        ("prompts.single.templates", ["no place"], "exactly one {}"),
        ("precisions.w2a4.weight_bits", 1, "greater than or equal to 2"),
        ("axes.sources", ["nois"], "sources names nois; expected recipes, noise, distilled"),
        ("axes.precisions", ["w9a9"], "axes.precisions names w9a9"),
        ("treatments.filtered.energy", 1.0, "less than 1"),
        ("treatments.filtered.mix", "blend", "'none', 'mixup' or 'cutmix'"),
        ("axes.treatments", ["sharpened"], "axes.treatments names sharpened, absent from `treatments`"),
        ("study.axes.recipes", ["mixup3"], "names mixup3, absent from `axes.recipes`"),
        ("study.axes.against", ["single"], "against names sources; expected some of none"),
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
        read(Synthesize, "prompts.triple", path)
    with pytest.raises(InputError, match="preset default"):
        read(Synthesize, "synthesize", path.with_name("absent.yaml"))
    path.write_text("a: [1")
    with pytest.raises(InputError, match="not valid YAML"):
        read(Synthesize, "synthesize", path)
