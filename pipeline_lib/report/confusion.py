"""How quantization changes which class is taken for which."""

from dataclasses import dataclass

import numpy as np
import pandas as pd

MOST_CLASSES = 20  # of a table of all pairs; with more classes it is not legible
LISTED_CHANGES = 20  # the largest ones, where there are more classes
SHADES = 4  # of a cell's background, by the size of its count


@dataclass(frozen=True)
class Change:
    """Images of one class that are taken for another, more of them or fewer than by the float network."""

    label: str
    predicted: str
    number: int


@dataclass(frozen=True)
class Confusion:
    """Counts of the reconstructed network minus those of the float one."""

    classes: list[str]
    counts: np.ndarray  # (labels, predictions)

    @property
    def tabular(self) -> bool:
        """Whether there are few enough classes to show every pair."""
        return len(self.classes) <= MOST_CLASSES

    def shade(self, number: int) -> str:
        """CSS class of a count: more1 to more4 or less1 to less4 by its size, empty for 0."""
        level = int(np.ceil(SHADES * abs(number) / max(1, np.abs(self.counts).max())))
        return f"{'more' if number > 0 else 'less'}{level}" if number else ""

    def largest(self) -> list[Change]:
        """The confusions that changed most, largest first."""
        confused = self.counts * (1 - np.eye(len(self.classes), dtype=int))
        order = np.argsort(-np.abs(confused), axis=None, kind="stable")[:LISTED_CHANGES]
        pairs = zip(*np.unravel_index(order, confused.shape), strict=True)
        return [Change(self.classes[i], self.classes[j], int(confused[i, j])) for i, j in pairs if confused[i, j]]


def confusion(predictions: pd.DataFrame, names: list[str]) -> Confusion:
    """What changed in a cell, by its predictions: columns label, float and reconstructed, each the index of a class.

    `names` are those of the classes, by index; the result has the classes that are found.
    """
    found, positions = np.unique(predictions.to_numpy(int), return_inverse=True)
    label, float_, reconstructed = positions.reshape(predictions.shape).T
    counts = np.zeros((len(found), len(found)), int)
    np.add.at(counts, (label, reconstructed), 1)
    np.add.at(counts, (label, float_), -1)
    return Confusion([names[index] for index in found], counts)
