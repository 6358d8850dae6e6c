"""How far one set of images is from another, in a classifier's penultimate features, and how varied it is."""

import numpy as np
from scipy.spatial.distance import cdist

from pipeline_lib.evaluation.features import Matrix

NEIGHBOURS = 5  # as Naeem et al. 2020 choose it


def kernel_distance(one: Matrix, other: Matrix) -> float:
    """Squared maximum mean discrepancy of features (n, d) and (m, d), unbiased: 0 in expectation for one distribution.

    Kernel, (x.y / d + 1)^3, and estimator are those of the Kernel Inception Distance (Binkowski et al. 2018, eq. 4).
    """
    n, m, d = len(one), len(other), one.shape[1]

    def kernel(x: Matrix, y: Matrix) -> Matrix:
        values: Matrix = (x @ y.T / d + 1) ** 3
        return values

    within_one, within_other = kernel(one, one), kernel(other, other)
    return float(
        (within_one.sum() - within_one.trace()) / (n * (n - 1))
        + (within_other.sum() - within_other.trace()) / (m * (m - 1))
        - 2 * kernel(one, other).mean()
    )


def manifold_metrics(images: Matrix, real: Matrix) -> dict[str, float]:
    """Precision and recall (Kynkaanniemi et al. 2019), density and coverage (Naeem et al. 2020).

    Features are (n, d) and (m, d). The measures depend on n and m: compare only sets of the same sizes.

    Each point has a ball that reaches to its NEIGHBOURS-th neighbour in its own set. precision: share of images that
    lie in a ball of a real one; recall: share of real ones that lie in a ball of an image; density: number of balls of
    real ones that an image lies in, on average, by NEIGHBOURS; coverage: share of real ones whose ball holds an image.
    """
    between = cdist(images, real)
    real_radius, image_radius = _radii(real), _radii(images)
    inside = between < real_radius
    return {
        "precision": float(inside.any(1).mean()),
        "recall": float((between < image_radius[:, None]).any(0).mean()),
        "density": float(inside.sum(1).mean() / NEIGHBOURS),
        "coverage": float((between.min(0) < real_radius).mean()),
    }


def diversity(images: Matrix) -> float:
    """Vendi score of features (n, d) with the cosine kernel: the effective number of distinct images, 1 to n.

    The exponential of the entropy of the eigenvalues of the kernel matrix over n (Friedman and Dieng 2023).
    """
    unit = images / np.linalg.norm(images, axis=1, keepdims=True).clip(min=1e-12)
    # both products have the same eigenvalues apart from zeros; the smaller one is quicker
    product = unit.T @ unit if images.shape[1] < len(images) else unit @ unit.T
    eigenvalues = np.linalg.eigvalsh(product / len(images))
    eigenvalues = eigenvalues[eigenvalues > 1e-12]
    return float(np.exp(-(eigenvalues * np.log(eigenvalues)).sum()))


def _radii(points: Matrix) -> Matrix:
    distances = cdist(points, points)
    radii: Matrix = np.partition(distances, NEIGHBOURS, axis=1)[:, NEIGHBOURS]  # the point itself is the nearest
    return radii
