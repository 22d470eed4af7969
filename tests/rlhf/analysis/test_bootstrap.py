"""Cluster bootstraps, compared with the values that they must converge to."""

import numpy as np
import pytest

from rlhf.analysis import bootstrap


def test_replicates_resample_whole_clusters():
    """Cluster 0 holds cell 0 twice, the other nine hold cell 1 once: totals are 2d and 10 - d."""
    cluster = np.array([0, 0, *range(1, 10)])
    drawn = bootstrap.totals(cluster, np.array([0, 0, *[1] * 9]), cells=2, replicates=4000, seed=1)
    assert (drawn[:, 0] / 2 + drawn[:, 1] == 10).all()
    # Ten draws with one chance in ten each.
    assert (drawn[:, 0] / 2).mean() == pytest.approx(1.0, abs=0.05)
    assert (drawn[:, 0] / 2).var() == pytest.approx(0.9, abs=0.08)


def test_both_ways_of_sampling_give_the_same_distribution(monkeypatch):
    rng = np.random.default_rng(0)
    cluster, cell = np.repeat(np.arange(300), 2), rng.integers(4, size=600)
    by_make = bootstrap.totals(cluster, cell, cells=4, replicates=3000, seed=1)
    monkeypatch.setattr(bootstrap, "MULTINOMIAL_UP_TO", 0)
    one_by_one = bootstrap.totals(cluster, cell, cells=4, replicates=3000, seed=1)
    assert by_make.mean(axis=0) == pytest.approx(one_by_one.mean(axis=0), rel=0.02)
    assert by_make.std(axis=0) == pytest.approx(one_by_one.std(axis=0), rel=0.06)
