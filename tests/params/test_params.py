"""params.yaml: every mistake is one line that names file, key, value and what is allowed."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic.fields import FieldInfo

from pipeline_lib.errors import InputError
from pipeline_lib.params.base import Section, read, validate
from pipeline_lib.params.everything import Params, preset, preset_names, read_everything, read_preset
from pipeline_lib.params.reconstruct import Method
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.yaml_file import parse_yaml
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
        ("calibrate.count", 10**12, "`calibrate.count` is 1000000000000; input should be less than or equal to"),
        ("runtime.threads", 1_000_000, "`runtime.threads` is 1000000; input should be less than or equal to 256"),
        ("synthesize.seed", 2**63, "less than 9223372036854775808"),
        ("synthesize.image_size", 8196, "less than or equal to 8192"),
        ("study.resamples", 10**9, "less than or equal to 1000000"),
        ("evaluate.confidence", 1 - 1e-12, "less than or equal to 0.9999"),
        ("distil", {1: 2}, "`distil."),
        ("distil", [1, 2], "`distil` is [1, 2]; input should be a valid dictionary"),
        ("calibrate.count", [1], "`calibrate.count` is [1]; input should be a valid integer"),
        ("axes.models", [["resnet"]], "`axes.models.0` is ['resnet']; input should be a valid string"),
        ("axes.models", "resnet", "`axes.models` is 'resnet'; input should be a valid list"),
        ("axes.models", [f"m{n}" for n in range(51)], "at most 50 items"),
        ("axes.models", ["m" * 51], "has at most 50"),
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


@pytest.mark.parametrize("key", ["task.classes", "task.labelled", "study.world", "runtime.ray.address"])
@pytest.mark.parametrize("value", ["", "a\nb", "a\0b", "tab\t", "d/" + "x" * 256, "na\u00efve" * 60])
def test_texts_that_are_no_path(path: Path, key: str, value: str) -> None:
    edit_params(path, **{key: value})
    with pytest.raises(InputError) as error:
        read_everything(path)
    assert f"`{key}` is " in str(error.value)
    assert "expected a path" in str(error.value)
    assert len(str(error.value)) < 500


def test_a_link_to_itself_is_a_path_like_any_other(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(path.parent)
    (path.parent / "loop").symlink_to("loop")
    edit_params(path, **{"task.labelled": "loop"})
    assert read_everything(path).task.labelled == "loop"


def numbers(values: Any, key: str = "") -> Iterator[tuple[str, float]]:
    """The numbers below a value of params.yaml, by dotted key."""
    if isinstance(values, dict):
        for name, inner in values.items():
            yield from numbers(inner, f"{key}.{name}".strip("."))
    elif isinstance(values, int | float) and not isinstance(values, bool):
        yield key, values


NUMBERS = dict(numbers(yaml.safe_load(preset("default"))))


@pytest.mark.parametrize("key", NUMBERS)
def test_what_is_no_number(key: str) -> None:
    infinity = float("inf")
    *parents, last = key.split(".")
    for value in (float("nan"), infinity, -infinity, 10**30, -(10**30), True, "1", None, [1], {"a": 1}, "x" * 10_000):
        section = content = parse_yaml(preset("default"), Path("params.yaml"))
        for parent in parents:
            section = section[parent]
        section[last] = value
        with pytest.raises(InputError) as error:
            validate(Params, content, "")
        assert f"`{key}` is " in str(error.value)
        assert len(str(error.value)) < 500


def bounds(field: FieldInfo) -> set[str]:
    """Which of ge, gt, le and lt a field has."""
    return {
        name for name in ("ge", "gt", "le", "lt") for limit in field.metadata if getattr(limit, name, None) is not None
    }


def test_every_number_has_bounds_on_both_sides() -> None:
    kinds, found = [Section], []
    for kind in kinds:
        kinds += [below for below in kind.__subclasses__() if below.__module__.startswith("pipeline_lib.params.")]
        numeric = {name: field for name, field in kind.model_fields.items() if field.annotation in (int, float)}
        found += [(kind.__name__, name, bounds(field)) for name, field in numeric.items()]
    assert len(found) > 30
    assert not [field for *field, has in found if not (has & {"ge", "gt"} and has & {"le", "lt"})]
