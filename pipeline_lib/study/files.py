"""What the study leaves of a source on a network; apart, for the comparison does without torch."""

CELLS, SETS, CLASSES, UNITS, PREDICTIONS = "cells.csv", "sets.csv", "classes.csv", "units.csv", "predictions.csv"
