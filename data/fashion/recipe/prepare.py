"""Compose, once, what the trainings read: scenes of the classifiers' half, groups of garments of either half."""

import numpy as np
from garments import DERIVED, compose_groups, compose_scenes, load, params


def test_scenes() -> np.ndarray:
    """The 10,000 labelled test scenes, of test images only."""
    images, _ = load("test")
    return compose_scenes(images, np.arange(len(images)), params("scenes")["seed"] + 1)


def main() -> None:
    DERIVED.mkdir(exist_ok=True)
    scenes, groups = params("scenes"), params("groups")
    images, labels = load("classifiers")
    indices = np.tile(np.arange(len(images)), scenes["variants"])
    np.savez(
        DERIVED / "scenes.npz",
        images=compose_scenes(images, indices, scenes["seed"]),
        labels=labels[indices],
    )
    for seed, half in enumerate(("generator", "classifiers"), groups["seed"]):
        pictures, members = compose_groups(*load(half), groups["count"], seed)
        np.savez(DERIVED / f"groups-{half}.npz", images=pictures, classes=members)


if __name__ == "__main__":
    main()
