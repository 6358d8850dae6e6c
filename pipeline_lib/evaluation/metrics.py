"""Accuracy and its confidence interval."""

from typing import Any

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

from pipeline_lib.models.prediction import Indices


def accuracy_metrics(
    labels: Indices, top5: Indices, class_names: list[str], confidence: float, reference: Indices | None = None
) -> dict[str, Any]:
    """Percentages: top1 with its Wilson interval, top5, agreement with `reference`, top-1 by class.

    Args:
        labels: of n images, (n,).
        top5: (n, k), the k <= 5 likeliest classes, likeliest first.
        class_names: in the order of the indices.
        confidence: of the interval, such as 0.95.
        reference: (n,), the float network's predictions; none for that network itself.
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
        "per_class": {
            name: _percent(predicted[labels == c] == c) for c, name in enumerate(class_names) if (labels == c).any()
        },
    }


def _percent(hits: npt.NDArray[np.bool_]) -> float:
    return round(100 * float(hits.mean()), 3)
