"""What a calibration set is like next to labelled images, measured with the float network."""

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline_lib.evaluation.distances import NEIGHBOURS, diversity, kernel_distance, manifold_metrics
from pipeline_lib.evaluation.features import Responses

Classes = Sequence[Sequence[int]]  # for each image those that it is meant to show; none for noise
Facts = dict[str, float | None]
DISTANCES = ("kernel_distance", "precision", "recall", "density", "coverage")


def set_facts(images: Responses, classes: Classes, labelled: Responses) -> Facts:
    """Kernel distance, precision, recall, density, coverage, diversity, and what is recognised of the named classes.

    `recognised`, in percent: of the k classes that an image is meant to show, the share that is among its k likeliest
    classes, averaged over images; for k = 1 that is top-1 accuracy. None where no image is meant to show any. The
    distances are None where either set has too few images for them.
    """
    shares = []
    for ranking, named in zip(images.ranking, classes, strict=True):
        if named:
            likeliest = set(ranking[: len(named)])
            shares.append(len(likeliest & set(named)) / len(named))
    distances: Facts = dict.fromkeys(DISTANCES)
    if min(len(images.features), len(labelled.features)) > NEIGHBOURS:
        distances["kernel_distance"] = kernel_distance(images.features, labelled.features)
        distances |= manifold_metrics(images.features, labelled.features)
    return {
        **distances,
        "diversity": diversity(images.features),
        "recognised": 100 * float(np.mean(shares)) if shares else None,
    }


def class_facts(
    images: Responses, classes: Classes, labelled: Responses, labels: npt.NDArray[np.int64]
) -> dict[int, Facts]:
    """For each class: number of its images, kernel distance to and coverage of its labelled images, `recognised`.

    The images of a class are those that are meant to show it, perhaps with others: our reading. `recognised` is the
    percentage of them that have it among their k likeliest classes, where k is the number of classes that they are
    meant to show. Classes with too few images of either sort are left out.
    """
    facts: dict[int, Facts] = {}
    for label in sorted({c for named in classes for c in named}):
        members = [i for i, named in enumerate(classes) if label in named]
        real = labelled.features[labels == label]
        if min(len(members), len(real)) > NEIGHBOURS:
            own = images.features[members]
            recognised = [label in images.ranking[i, : len(classes[i])] for i in members]
            facts[label] = {
                "images": float(len(members)),
                "kernel_distance": kernel_distance(own, real),
                "coverage": manifold_metrics(own, real)["coverage"],
                "recognised": 100 * float(np.mean(recognised)),
            }
    return facts


def named_accuracy(predicted: npt.NDArray[np.int64], classes: Classes) -> float | None:
    """Percentage of images predicted as a class that they are meant to show; None without such classes."""
    hits = [p in named for p, named in zip(predicted, classes, strict=True) if named]
    return 100 * float(np.mean(hits)) if hits else None
