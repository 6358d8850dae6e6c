"""Section `choose`."""

from pipeline_lib.params.base import Section


class Choose(Section):
    """Which source's networks are delivered."""

    calibration: str = "auto"  # auto, or a source of axes
