"""What a calibration set is like, against labelled images, in the eyes of the float network."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline_lib.evaluation.distances import NEIGHBOURS, diversity, kernel_distance, manifold_metrics
from pipeline_lib.evaluation.features import Responses

Classes = Sequence[Sequence[int]]  # that each image is meant to show; none for noise
Facts = dict[str, float | None]


def set_facts(images: Responses, classes: Classes, labelled: Responses) -> Facts:
    """Kernel distance, precision, recall, density, coverage, diversity, and what is recognised of the named classes.

    `recognised`: of an image that k classes were named for, the share of these among the k likeliest, averaged in
    percent; for one class that is top-1 accuracy. None where no classes were named.
    """
    hits = [
        len({*seen[: len(named)]} & {*named}) / len(named)
        for seen, named in zip(images.ranking, classes, strict=True)
        if named
    ]
    return {
        "kernel_distance": kernel_distance(images.features, labelled.features),
        **manifold_metrics(images.features, labelled.features),
        "diversity": diversity(images.features),
        "recognised": 100 * float(np.mean(hits)) if hits else None,
    }


def class_facts(
    images: Responses, classes: Classes, labelled: Responses, labels: npt.NDArray[np.int64]
) -> dict[int, Facts]:
    """By class, of the images that name it and the labelled images of it: kernel distance, coverage, and `recognised`,
    here the percentage of its images that have it among as many likeliest classes as they name.

    That an image of several classes counts for each of them is our reading. Classes with too few images are left out.
    """
    facts: dict[int, Facts] = {}
    for label in sorted({c for named in classes for c in named}):
        members = [i for i, named in enumerate(classes) if label in named]
        real = labelled.features[labels == label]
        if min(len(members), len(real)) > NEIGHBOURS:
            own = images.features[members]
            found = [label in images.ranking[i, : len(classes[i])] for i in members]
            facts[label] = {
                "images": float(len(members)),
                "kernel_distance": kernel_distance(own, real),
                "coverage": manifold_metrics(own, real)["coverage"],
                "recognised": 100 * float(np.mean(found)),
            }
    return facts


def named_accuracy(predicted: npt.NDArray[np.int64], classes: Classes) -> float | None:
    """Percentage of images whose predicted class (n,) is one of those named for it; None where none were named."""
    hits = [p in named for p, named in zip(predicted, classes, strict=True) if named]
    return 100 * float(np.mean(hits)) if hits else None
