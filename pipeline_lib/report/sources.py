"""Where the calibration images of a source come from, in words."""

from pipeline_lib.params.task import Axes


def origin(axes: Axes, source: str) -> str:
    """What the calibration set of a source is made from, step by step."""
    treated = {f"{recipe}-{treatment}": (recipe, treatment) for recipe in axes.treated for treatment in axes.treatments}
    if source in treated:
        recipe, treatment = treated[source]
        return f"data/synthetic/{recipe} → treat ({treatment}) → calibration set"
    if source in axes.recipes:
        return "class names → prompts → diffusion model → shards → calibration set"
    if source in axes.noise:
        return "seeded noise → calibration set"
    if source in axes.distilled:
        return "the classifier alone → distilled images → calibration set"
    if source in axes.images:
        return "images that were rendered elsewhere → calibration set"
    return "real images → calibration set"
