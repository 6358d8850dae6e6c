"""The whole of params.yaml, for commands that judge a file rather than run a stage; and the presets."""

from io import StringIO
from pathlib import Path
from typing import Any

from ruamel.yaml import YAML

from pipeline_lib.errors import InputError
from pipeline_lib.params.base import PARAMS_FILE, Section, listed, load, validate
from pipeline_lib.params.calibrate import Calibrate
from pipeline_lib.params.choose import Choose
from pipeline_lib.params.distil import Distil
from pipeline_lib.params.evaluate import Evaluate
from pipeline_lib.params.images import StatedImages
from pipeline_lib.params.names import Name, OwnName
from pipeline_lib.params.prompts import Recipe
from pipeline_lib.params.reconstruct import Method, Precision, Reconstruct
from pipeline_lib.params.report import Report
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.params.study import Study
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.params.task import Axes, Task, check_stated_images
from pipeline_lib.params.treatments import Treatment

PRESETS = Path(__file__).parents[1] / "presets"
DEFAULT = "default"


class Params(Section):
    """Every section."""

    task: Task
    axes: Axes
    prompts: dict[OwnName, Recipe]
    images: dict[OwnName, StatedImages]
    synthesize: Synthesize
    calibrate: Calibrate
    treatments: dict[OwnName, Treatment]
    distil: Distil
    precisions: dict[OwnName, Precision]
    methods: dict[Name, Method]
    reconstruct: Reconstruct
    choose: Choose
    evaluate: Evaluate
    report: Report
    study: Study
    runtime: Runtime


def read_everything(path: Path = PARAMS_FILE) -> Params:
    """Validate the file as a whole: each section, and that the axes name what is defined.

    Raises:
        InputError: naming file, key, value and what is allowed.
    """
    return _checked(load(path), path)


def read_preset(name: str) -> Params:
    """A preset, validated."""
    return _checked(YAML(typ="safe").load(preset(name)), PRESETS / f"{name}.yaml")


def preset_names() -> list[str]:
    """All presets."""
    return sorted(path.stem for path in PRESETS.glob("*.yaml"))


def preset(name: str) -> str:
    """The params.yaml of a preset: the default one, changed where the file of the preset differs, comments kept.

    Raises:
        InputError: there is no such preset.
    """
    if name not in preset_names():
        raise InputError(f"no preset {name!r}; there are {', '.join(preset_names())}")
    default, changes = ((PRESETS / f"{n}.yaml").read_text(encoding="utf-8") for n in (DEFAULT, name))
    if name == DEFAULT:
        return default
    yaml = YAML()
    yaml.width, yaml.preserve_quotes = 120, True
    yaml.indent(mapping=2, sequence=4, offset=2)
    content, differences = yaml.load(default), yaml.load(changes)
    change(content, differences)
    content.ca.comment = differences.ca.comment  # the lines above the first section
    text = StringIO()
    yaml.dump(content, text)
    return text.getvalue()


def change(values: Any, differences: Any) -> None:
    """Put the differences into the values, in place, mappings key by key."""
    for key, value in differences.items():
        if isinstance(value, dict) and isinstance(values.get(key), dict):
            change(values[key], value)
        else:
            values[key] = value


def _checked(content: dict[str, Any], path: Path) -> Params:
    params = validate(Params, content, "", path)
    axes, study = params.axes, params.study
    check_stated_images(params.task, axes, path)
    rendered = study.axes.recipes + (study.cells.judges if study.axes.sources else [])
    for key, names, defined, where in (
        ("axes.recipes", axes.recipes, params.prompts, "prompts"),
        ("axes.images", axes.images, params.images, "images"),
        ("axes.treatments", axes.treatments, params.treatments, "treatments"),
        ("axes.precisions", axes.precisions, params.precisions, "precisions"),
        ("study.axes.treatments", study.axes.treatments, params.treatments, "treatments"),
        ("study.cells.precisions", study.cells.precisions, params.precisions, "precisions"),
        ("study.axes.recipes or study.cells.judges", rendered, axes.recipes, "axes.recipes"),
        ("reconstruct.methods", list(params.reconstruct.methods.values()), params.methods, "methods"),
        ("choose.calibration", [params.choose.calibration], ["auto", *axes.sources], "axes.sources"),
    ):
        missing = [name for name in names if name not in defined]
        if missing:
            raise InputError(f"{path}: {key} names {listed(missing)}, absent from `{where}`")
    return params
