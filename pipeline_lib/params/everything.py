"""The whole of params.yaml, for commands that judge a file rather than run a stage."""

from pathlib import Path
from typing import Any

from pipeline_lib.errors import InputError
from pipeline_lib.params.base import PARAMS_FILE, Section, load, validate
from pipeline_lib.params.calibrate import Calibrate
from pipeline_lib.params.choose import Choose
from pipeline_lib.params.distil import Distil
from pipeline_lib.params.evaluate import Evaluate
from pipeline_lib.params.prompts import Recipe
from pipeline_lib.params.reconstruct import Method, Precision, Reconstruct
from pipeline_lib.params.report import Report
from pipeline_lib.params.runtime import Runtime
from pipeline_lib.params.study import Study
from pipeline_lib.params.synthesize import Synthesize
from pipeline_lib.params.task import Axes, Task
from pipeline_lib.params.treatments import Treatment


class Params(Section):
    """Every section."""

    task: Task
    axes: Axes
    prompts: dict[str, Recipe]
    synthesize: Synthesize
    calibrate: Calibrate
    treatments: dict[str, Treatment]
    distil: Distil
    precisions: dict[str, Precision]
    methods: dict[str, Method]
    reconstruct: Reconstruct
    choose: Choose
    evaluate: Evaluate
    report: Report
    study: Study
    runtime: Runtime


def read_everything(path: Path = PARAMS_FILE) -> Params:
    """Validate the file as a whole: each section, and that the axes name what is defined."""
    content: dict[str, Any] = load(path)
    params = validate(Params, content, "", path)
    axes, study = params.axes, params.study
    rendered = study.axes.recipes + (study.cells.judges if study.axes.sources else [])
    for key, names, defined, where in (
        ("axes.recipes", axes.recipes, params.prompts, "prompts"),
        ("axes.treatments", axes.treatments, params.treatments, "treatments"),
        ("axes.precisions", axes.precisions, params.precisions, "precisions"),
        ("study.axes.treatments", study.axes.treatments, params.treatments, "treatments"),
        ("study.cells.precisions", study.cells.precisions, params.precisions, "precisions"),
        ("study.axes.recipes or study.cells.judges", rendered, axes.recipes, "axes.recipes"),
    ):
        missing = [name for name in names if name not in defined]
        if missing:
            raise InputError(f"{path}: {key} names {', '.join(missing)}, absent from `{where}`")
    for family in ("cnn", "vit"):
        method = getattr(params.reconstruct, family)
        if method not in params.methods:
            raise InputError(f"{path}: reconstruct.{family} is {method!r}; `methods` has {', '.join(params.methods)}")
    return params
