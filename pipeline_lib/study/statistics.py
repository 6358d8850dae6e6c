"""Is one source better than another? Tests paired over test images, which allow for the chance of replicates too."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.stats import binomtest

Hits = npt.NDArray[np.bool_]  # (replicates, images): whether a network classifies an image rightly


class Difference(NamedTuple):
    """The top-1 of one source minus that of another, in percentage points."""

    mean: float
    spread: float  # standard deviation over replicates
    low: float  # end of the confidence interval
    high: float  # the other end
    p: float  # of no difference, two-sided, from the bootstrap


def paired_difference(one: Hits, other: Hits, resamples: int, confidence: float, seed: int = 0) -> Difference:
    """Mean difference of accuracy with the interval of the pigeonhole bootstrap (Owen 2007).

    Replicates and images are resampled independently, so that the interval covers both another draw of calibration sets
    and another draw of test images; it is rather too wide than too narrow.

    Args:
        one, other: what each source classifies rightly, (replicates, images); the images are the same.
        resamples: of the bootstrap.
        confidence: of the interval, such as 0.95.
        seed: of the bootstrap.
    """
    differences = 100 * (one.astype(np.float64) - other)
    replicates, images = differences.shape
    rng = np.random.default_rng(seed)
    by_image = rng.multinomial(images, np.full(images, 1 / images), resamples) / images
    by_replicate = rng.multinomial(replicates, np.full(replicates, 1 / replicates), resamples) / replicates
    means = np.einsum("br,ri,bi->b", by_replicate, differences, by_image, optimize=True)
    low, high = np.quantile(means, [(1 - confidence) / 2, (1 + confidence) / 2])
    rarer_sign = 1 + min((means <= 0).sum(), (means >= 0).sum())
    return Difference(
        mean=float(differences.mean()),
        spread=float(differences.mean(1).std(ddof=1)) if replicates > 1 else float("nan"),
        low=float(low),
        high=float(high),
        p=min(1.0, 2 * float(rarer_sign) / (resamples + 1)),
    )


class Discordance(NamedTuple):
    """Images that one of two networks classifies rightly and the other wrongly."""

    won: int  # by the first network
    lost: int
    p: float  # exact, of McNemar's test


def mcnemar(one: npt.NDArray[np.bool_], other: npt.NDArray[np.bool_]) -> Discordance:
    """McNemar's exact test: what two networks classify rightly of the same images, (images,) each."""
    won = int((one & ~other).sum())
    lost = int((other & ~one).sum())
    p = float(binomtest(won, won + lost).pvalue) if won + lost else 1.0
    return Discordance(won, lost, p)
