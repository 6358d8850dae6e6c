"""Accuracy and its confidence interval."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from pipeline_lib.models.prediction import Indices


def accuracy_metrics(
    labels: Indices, top5: Indices, confidence: float, reference: Indices | None = None
) -> dict[str, Any]:
    """Percentages: top1 with its Wilson interval, top5, agreement with `reference`, top-1 by the index of a class.

    `labels` are those of n images, (n,); `top5`, (n, k), has their k <= 5 likeliest classes, likeliest first;
    `confidence` of the interval is such as 0.95; `reference`, (n,), is what the float network predicts.
    """
    predicted, n = top5[:, 0], len(labels)
    interval = binomtest(int((predicted == labels).sum()), n).proportion_ci(confidence, method="wilson")
    agreement = {} if reference is None else {"agreement": _percent(predicted == reference)}
    return {
        "top1": _percent(predicted == labels),
        "top1_low": round(100 * float(interval.low), 3),
        "top1_high": round(100 * float(interval.high), 3),
        "top5": _percent((top5 == labels[:, None]).any(1)),
        **agreement,
        "per_class": {str(c): _percent(predicted[labels == c] == c) for c in np.unique(labels)},
    }


def doubt_of_guessing(metrics: dict[str, Any], classes: int) -> str:
    """What to say of a network that may be no better than guessing, by the interval of its top-1; or nothing."""
    if classes == 1 or metrics["top1_low"] > 100 / classes:
        return ""
    return f", which guessing among {classes} classes may reach: are labels or preprocessing wrong?"


def _percent(hits: npt.NDArray[np.bool_]) -> float:
    return round(100 * float(hits.mean()), 3)
