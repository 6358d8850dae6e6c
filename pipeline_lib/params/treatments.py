"""Section `treatments`: one treatment a key."""

from typing import Annotated, Literal

from pydantic import Field

from pipeline_lib.params.base import Section

Share = Annotated[float, Field(ge=0, lt=1)]


class Treatment(Section):
    """What is done with the images of a dataset before a network is calibrated on them."""

    mix: Literal["none", "mixup", "cutmix"] = "none"  # of two images at a time, before they are filtered
    energy: Share = 0.0  # dropped: those with the highest energy score
    batch_norm: Share = 0.0  # dropped: those with the highest batch-norm sensitivity; not where there is no batch norm
    patch_entropy: Share = (
        0.0  # dropped: those with the lowest patch-similarity entropy; not where there is no attention
    )
    duplicate_similarity: Annotated[float, Field(gt=0, le=1)] = 1.0  # cosine, of centred pixels; 1: copies alone
    balance: bool = False  # drop surplus images of classes that have their share
