"""Is one source better than another? Paired over test images, with replicates as a second source of chance."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

Hits = npt.NDArray[np.bool_]  # (replicates, images): whether a network classifies an image rightly


class Difference(NamedTuple):
    """Of one source's top-1 minus another's, in points."""

    mean: float
    spread: float  # standard deviation over replicates
    low: float  # of the interval
    high: float
    p: float  # two-sided, of no difference, from the bootstrap


def paired_difference(one: Hits, other: Hits, resamples: int, confidence: float, seed: int = 0) -> Difference:
    """Mean difference of accuracy with the interval of the pigeonhole bootstrap (Owen 2007).

    Replicates and images are resampled independently, so that the interval covers both another draw of calibration sets
    and another draw of test images; it errs on the wide side.
    """
    differences = 100 * (one.astype(np.float64) - other)
    replicates, images = differences.shape
    rng = np.random.default_rng(seed)
    by_image = rng.multinomial(images, np.full(images, 1 / images), resamples) / images
    by_replicate = rng.multinomial(replicates, np.full(replicates, 1 / replicates), resamples) / replicates
    means = np.einsum("br,ri,bi->b", by_replicate, differences, by_image, optimize=True)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    beyond = 1 + min((means <= 0).sum(), (means >= 0).sum())
    return Difference(
        mean=float(differences.mean()),
        spread=float(differences.mean(1).std(ddof=1)) if replicates > 1 else float("nan"),
        low=float(low),
        high=float(high),
        p=min(1.0, 2 * float(beyond) / (resamples + 1)),
    )


class Discordance(NamedTuple):
    """Images that one of two networks classifies rightly and the other wrongly."""

    won: int
    lost: int
    p: float  # exact, of McNemar's test


def mcnemar(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> Discordance:
    """McNemar's exact test of two networks on the same images, (images,) each."""
    won, lost = int((one & ~other).sum()), int((other & ~one).sum())
    return Discordance(won, lost, float(binomtest(won, won + lost).pvalue) if won + lost else 1.0)
