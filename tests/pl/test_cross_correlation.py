from __future__ import annotations

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.colors import to_rgb

from omicvae import pl, tl
from omicvae.model import CoVAE


def test_whiskers_are_the_interval_at_the_point_they_belong_to(model: CoVAE) -> None:
    table = tl.cross_correlation(model)
    ax = pl.cross_correlation(table)
    whiskers = [c for c in ax.collections if isinstance(c, LineCollection)]
    lines = [line for line in ax.lines if len(line.get_xdata()) > 2][::2]
    pairs = list(table.groupby(["modality_a", "modality_b"], sort=False))
    assert len(whiskers) == len(lines) == len(pairs)
    for (_, part), drawn, line in zip(pairs, whiskers, lines, strict=True):
        ends = np.stack(drawn.get_segments())  # (dimensions, two ends, x and y)
        np.testing.assert_allclose(ends[:, :, 1], part[["lower", "upper"]])
        np.testing.assert_allclose(ends[:, :, 0], np.repeat(np.asarray(line.get_xdata())[:, None], 2, 1))
        np.testing.assert_allclose(to_rgb(drawn.get_color()[0]), to_rgb(line.get_color()))


def test_pairs_stand_beside_each_other_nearest_their_own_dimension(model: CoVAE) -> None:
    table = tl.cross_correlation(model)
    lines = [line for line in pl.cross_correlation(table).lines if len(line.get_xdata()) > 2][::2]
    x = np.stack([np.asarray(line.get_xdata()) for line in lines])
    assert len(np.unique(x)) == x.size
    np.testing.assert_array_equal(np.round(x), np.broadcast_to(np.arange(x.shape[1]), x.shape))


def test_a_table_without_intervals_is_drawn_without_whiskers(model: CoVAE) -> None:
    table = tl.cross_correlation(model).drop(columns=["lower", "upper"])
    assert not pl.cross_correlation(table).collections
