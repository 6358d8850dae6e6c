"""All checks of what params.yaml names, in the order in which a run would come across them."""

from collections.abc import Callable, Iterator, Sequence
from functools import cache, partial
from itertools import islice
from pathlib import Path

from pipeline_lib.doctor.costs import Costs, cost_findings
from pipeline_lib.doctor.findings import Finding, guarded
from pipeline_lib.doctor.generator import examine_generator
from pipeline_lib.doctor.networks import examine_network
from pipeline_lib.doctor.pictures import examine_labelled, examine_pictures
from pipeline_lib.evaluation.labelled import Labelled, labelled_set
from pipeline_lib.params.everything import Params
from pipeline_lib.prompts.limits import Tokenizer, load_tokenizers, within_limits
from pipeline_lib.prompts.strategies import Surroundings, write_prompts
from pipeline_lib.prompts.vocabulary import ClassName, read_vocabulary

PROMPTS = 2048  # of a recipe, at most, that are written to be looked at


def examine(params: Params) -> Iterator[Finding]:
    """Look at everything that the stages of this params.yaml would read; nothing is written."""
    task, axes, costs = params.task, params.axes, Costs()
    classes: list[ClassName] = []
    yield from guarded("classes", _classes(Path(task.classes), classes))
    tokenizers = cache(load_tokenizers)
    if classes:
        for recipe in params.prompts:  # the stage runs for each of them
            yield from guarded(f"prompts.{recipe}", _prompts(params, recipe, classes, tokenizers))
    yield from guarded("counts", _counts(params))
    if axes.recipes:
        yield from guarded("generator", examine_generator(params, costs))
    if axes.real:
        yield from guarded("real", examine_pictures("real", Path(task.real), params.calibrate.count))
    for source in axes.images:
        about, path = f"images.{source}", Path(task.images) / source
        yield from guarded(about, examine_pictures(about, path, params.calibrate.count))
    read = cache(partial(labelled_set, classes=classes))  # once for all networks
    for labelled, classifiers in _judged(params):
        images: list[Labelled] = []
        if classes:
            yield from guarded("labelled", examine_labelled(labelled, read, params.evaluate.fraction, images))
        for folder in classifiers:
            yield from guarded(folder.name, examine_network(folder, classes, images, params, costs))
    yield from cost_findings(params, costs)


def _judged(params: Params) -> Iterator[tuple[Path, Sequence[Path]]]:
    """Labelled images, with the folders of the networks that are judged on them."""
    task, study = params.task, params.study
    if params.axes.models:
        yield Path(task.labelled), [Path(task.classifiers) / model for model in params.axes.models]
    if study.axes.sources:
        world = Path(study.world)
        for domain in study.axes.domains:
            yield world / "test" / domain, [world / "classifiers" / domain / model for model in study.axes.models]


def _classes(path: Path, classes: list[ClassName]) -> Iterator[Finding]:
    """`classes` gets what is read."""
    classes += read_vocabulary(path)
    defined = sum(bool(entry.definition) for entry in classes)
    yield Finding("OK", "classes", f"{path}: {len(classes)} classes, {defined} with a definition")


def _prompts(
    params: Params, recipe: str, classes: list[ClassName], tokenizers: Callable[[Path], list[Tokenizer]]
) -> Iterator[Finding]:
    section, generator = params.prompts[recipe], Path(params.task.generator)
    rows = islice(write_prompts(recipe, section, Surroundings(classes, generator)), PROMPTS)
    written = list(within_limits(rows, recipe, section, tokenizers(generator)))
    looked_at = "" if section.count <= PROMPTS else f", of which the first {PROMPTS} are looked at"
    yield Finding("OK", f"prompts.{recipe}", f"{section.count} prompts{looked_at}, such as {written[0]['prompt']!r}")


def _counts(params: Params) -> Iterator[Finding]:
    """How many images there are for what is asked for; stages find the same, hours later."""
    count, held_out = params.calibrate.count, params.reconstruct.held_out
    for recipe in params.axes.recipes:
        if params.prompts[recipe].count < count:
            text = f"`prompts.{recipe}.count` is {params.prompts[recipe].count}, below `calibrate.count`, {count}"
            yield Finding("FAIL", "counts", f"params.yaml: {text}; raise it, or lower that")
    if count <= held_out:
        text = f"`reconstruct.held_out` is {held_out}, expected less than `calibrate.count`, {count}"
        yield Finding("FAIL", "counts", f"params.yaml: {text}")
