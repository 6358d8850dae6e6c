"""The generator: that it will load and render. A small one renders an image."""

import time
from collections.abc import Iterator
from pathlib import Path

from pipeline_lib.doctor.costs import Costs
from pipeline_lib.doctor.findings import Finding
from pipeline_lib.models.device import resolve_device
from pipeline_lib.params.everything import Params
from pipeline_lib.synthesis.check_generator import check_generator, trained_size

TIMED = 8  # images
PATIENCE = 2.0  # seconds of an image, after which no more are rendered to time them
USUAL = 256  # pixels a side, where a generator does not say what it was trained on
STEPS = 100  # of a scheduler, more than which take long
SMALL = 512 << 20  # bytes of weights, below which loading them takes seconds


def examine_generator(params: Params, costs: Costs) -> Iterator[Finding]:
    """Facts from its configuration; `costs` gets the seconds of an image where one is rendered.

    Raises:
        InputError: it will not render what params ask for.
    """
    folder, section = Path(params.task.generator), params.synthesize
    for fact in check_generator(folder, section):
        yield Finding("OK", "generator", fact)
    weights = sum(file.stat().st_size for file in folder.rglob("*.safetensors"))
    if not 0 < weights <= SMALL:
        yield Finding("OK", "generator", "no image is rendered to try it: its weights are large, or not here")
        return
    most = 2 * (trained_size(folder) or USUAL)
    if section.image_size > most or section.steps > STEPS:
        text = f"`synthesize` asks for {section.steps} steps of {section.image_size} pixels a side"
        yield Finding("OK", "generator", f"no image is rendered to try it, for that takes long: {text}")
        return
    from pipeline_lib.synthesis.generator import Generator  # loads diffusers, which takes seconds

    device = resolve_device(params.runtime)
    generator = Generator(folder, section.model_copy(update={"compile": False}), device)
    text = params.prompts[params.axes.recipes[0]].negative_prompt
    sample = {"prompt": "a photo", "negative_prompt": text, "seed": section.seed, "weights": [1.0]}
    embeddings = generator.embed([sample])
    began = time.monotonic()
    (picture,) = generator.render([sample], embeddings)
    costs.seconds_of_an_image = time.monotonic() - began
    if costs.seconds_of_an_image <= PATIENCE:  # the first takes longer than others
        few = [sample] * min(section.batch_size, TIMED)
        began = time.monotonic()
        generator.render(few, embeddings)
        costs.seconds_of_an_image = (time.monotonic() - began) / len(few)
    height, width, _ = picture.pixels.shape
    if picture.not_a_number:
        yield Finding("WARN", "generator", f"its image has values that are no numbers; `dtype` is {section.dtype}")
    else:
        yield Finding("OK", "generator", f"an image of {width}x{height} takes {costs.seconds_of_an_image:.2g} s")
