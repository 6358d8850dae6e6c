"""The tests of the study against cases whose answer is known."""

import numpy as np
import pytest

from pipeline_lib.study.statistics import mcnemar, paired_difference


def test_no_difference_is_found_where_there_is_none() -> None:
    rng = np.random.default_rng(0)
    low = 0
    for trial in range(60):
        one, other = rng.random((2, 3, 400)) < 0.8
        difference = paired_difference(one, other, 500, 0.95, trial)
        assert difference.low < difference.mean < difference.high
        low += difference.p < 0.05
    assert low <= 6, "5% are expected, fewer for an interval on the wide side"


def test_a_difference_is_found_and_has_its_size() -> None:
    rng = np.random.default_rng(0)
    other = rng.random((3, 2000)) < 0.7
    one = other | (rng.random((3, 2000)) < 0.1)
    difference = paired_difference(one, other, 1000, 0.95)
    assert difference.mean == pytest.approx(100 * (one.mean() - other.mean()))
    assert 0 < difference.low < difference.mean < difference.high < 6
    assert difference.p < 0.01
    swapped = paired_difference(other, one, 1000, 0.95)
    assert swapped.mean == -difference.mean and swapped.p == difference.p


def test_replicates_that_disagree_widen_the_interval() -> None:
    rng = np.random.default_rng(0)
    other = rng.random((3, 2000)) < 0.7
    gain = rng.random((3, 2000)) < np.array([[0.0], [0.05], [0.3]])
    alike = paired_difference(other | (rng.random((3, 2000)) < gain.mean()), other, 1000, 0.95)
    unlike = paired_difference(other | gain, other, 1000, 0.95)
    assert unlike.high - unlike.low > 2 * (alike.high - alike.low)
    assert unlike.spread > alike.spread


def test_mcnemar_counts_the_discordant() -> None:
    one, other = np.array([1, 1, 1, 1, 0, 0, 1, 1], bool), np.array([1, 0, 0, 0, 1, 0, 0, 0], bool)
    assert mcnemar(one, other) == (5, 1, pytest.approx(0.21875))  # binomial: 2 * (1 + 6) / 64
    assert mcnemar(one, one).p == 1
