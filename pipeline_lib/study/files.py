"""Names of the files that the study writes for a source on a network: here, so that comparing needs no torch."""

CELLS, SETS, CLASSES, UNITS, PREDICTIONS = "cells.csv", "sets.csv", "classes.csv", "units.csv", "predictions.csv"
