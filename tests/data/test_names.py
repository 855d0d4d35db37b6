"""Samples that are found again by name."""

import numpy as np
import pandas as pd

from omicvae.data._names import NamedSamples, without_table


def test_samples_are_found_by_position_until_the_data_change_then_by_name() -> None:
    names = pd.Index([f"s{i}" for i in range(6)])
    some = NamedSamples(np.array([4, 1, 3]), names)
    assert some.names.tolist() == ["s4", "s1", "s3"]
    assert some.positions_in(names).tolist() == [4, 1, 3]
    assert some.positions_in(without_table(names)).tolist() == [4, 1, 3]
    assert some.positions_in(names[::-1]).tolist() == [1, 4, 2]
    assert some.positions_in(names[[3, 0, 1]]).tolist() == [2, 0]  # s4 has been filtered out
    assert some.positions_in(pd.Index([], dtype=object)).tolist() == []
