"""Section `calibrate`."""

from pipeline_lib.params.base import Count, Section, Seed


class Calibrate(Section):
    """How many images a calibration set holds, and how they are drawn."""

    count: Count  # images
    seed: Seed = 0  # of the noise, of the draw of real images, of treatments that mix
    preview: Count  # images that evaluation and report look at
