"""Rows and features are matched by name, whatever is done to the MuData."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mudata
import numpy as np
import pandas as pd
import pytest
import torch
from anndata import AnnData
from hypothesis import given, settings
from hypothesis import strategies as st
from mudata import MuData

from omicvae.data import Cohort, modality_rows

RNA, PROT, METH = "rna", "prot.surface", "méthylation"


def permuted(names: Any, seed: int = 5) -> np.ndarray:
    return np.random.default_rng(seed).permutation(len(names))


class TestBatch:
    @settings(max_examples=50, deadline=None, derandomize=True)
    @given(indices=st.lists(st.integers(-20, 19), max_size=30), seed=st.integers(0, 5))
    def test_holds_the_rows_that_exist_in_the_order_asked(self, mosaic: Any, indices: list[int], seed: int) -> None:
        """Also repeated samples, positions from the end, and no sample at all."""
        mdata = mosaic.mdata(seed=seed)
        batch = Cohort(mdata, mosaic.schema()).batch(indices)
        mosaic.check(batch, [mdata.obs_names[i] for i in indices])

    def test_equals_one_built_by_hand(self, mosaic: Any) -> None:
        mdata = mosaic.mdata()
        at = mdata.obs_names.get_indexer(["s03", "s12", "s19"])
        batch = Cohort(mdata, mosaic.schema()).batch(at)
        assert batch.present.tolist() == [[True, False, False], [True, True, True], [False, False, True]]
        assert {m: rows.tolist() for m, rows in batch.rows.items()} == {RNA: [0, 1], PROT: [1], METH: [1, 2]}
        # rna_j of sample i is 10 i + j + 1, or 0 where i + j is a multiple of 3
        assert batch.x[RNA].tolist() == [[0, 32, 33, 0, 35, 36, 0], [0, 122, 123, 0, 125, 126, 0]]
        assert batch.x[PROT].tolist() == [[0, 1122, 1123, 0, 1125]]
        assert torch.equal(batch.size[RNA], torch.tensor([136.0, 496.0]))

    def test_slices_and_masks_are_positions(self, mosaic: Any) -> None:
        mdata = mosaic.mdata()
        cohort, names = Cohort(mdata, mosaic.schema()), mdata.obs_names
        mosaic.check(cohort.batch(slice(3, 17, 4)), names[3:17:4])
        mask = np.arange(20) % 3 == 0
        mosaic.check(cohort.batch(mask), names[mask])
        assert len(cohort) == 20

    def test_every_tensor_moves_with_the_batch(self, mosaic: Any) -> None:
        batch = Cohort(mosaic.mdata(), mosaic.schema()).batch([0, 1]).to("meta")
        for field in batch:
            for tensor in field.values() if isinstance(field, dict) else [field]:
                assert tensor.device.type == "meta"
        assert batch.n_samples == 2

    def test_missing_values_stay_missing(self, mosaic: Any) -> None:
        cohort = Cohort(mosaic.mdata(), mosaic.schema())
        batch = cohort.batch(slice(None))
        truth = mosaic.table(METH, [n for n in cohort.obs_names if n in mosaic.measured[METH]])
        assert np.array_equal(batch.x[METH].isnan().numpy(), np.isnan(truth)) and np.isnan(truth).any()
        assert not batch.x[RNA].isnan().any()
        assert batch.size[METH].isfinite().all()


class TestChangedByTheUser:
    """Each of these pairs one sample's assay with another's where rows are taken by position."""

    def test_rows_of_a_modality_reordered_in_place(self, mosaic: Any) -> None:
        mdata = mosaic.mdata(seed=None)
        mdata.mod[RNA]._inplace_subset_obs(permuted(mdata[RNA].obs_names))  # obsmap is not refreshed
        assert (mdata.obsmap[RNA][:17] == np.arange(1, 18)).all()
        mosaic.check(Cohort(mdata, mosaic.schema()).batch(slice(None)), mdata.obs_names)

    def test_rows_and_features_reordered_after_the_cohort_was_read(self, mosaic: Any) -> None:
        mdata, schema = mosaic.mdata(), mosaic.schema()
        cohort = Cohort(mdata, schema)
        assert cohort.matches(mdata)
        mdata.mod[PROT]._inplace_subset_obs(permuted(mdata[PROT].obs_names))
        assert not cohort.matches(mdata)
        cohort = Cohort(mdata, schema)
        mdata.mod[RNA]._inplace_subset_var(permuted(mdata[RNA].var_names))
        assert not cohort.matches(mdata)
        mosaic.check(Cohort(mdata, schema).batch(slice(None)), mdata.obs_names)

    def test_a_modality_that_lost_samples_without_an_update(self, mosaic: Any) -> None:
        mdata = mosaic.mdata()
        kept = sorted(mosaic.measured[PROT])[::2]
        mdata.mod[PROT]._inplace_subset_obs(kept)
        measured = {**mosaic.measured, PROT: kept}
        mosaic.check(Cohort(mdata, mosaic.schema()).batch(slice(None)), mdata.obs_names, measured)

    @pytest.mark.parametrize("backed", [False, True])
    def test_views_copies_and_subsets(self, mosaic: Any, backed: bool, tmp_path: Path) -> None:
        mdata, schema = mosaic.mdata(storage="csr"), mosaic.schema()
        if backed:
            mdata.write(tmp_path / "m.h5mu")
            mdata = mudata.read_h5mu(tmp_path / "m.h5mu", backed="r")
        chosen = permuted(mdata.obs_names)[:8]
        view = mdata[chosen]
        mosaic.check(Cohort(view, schema).batch(slice(None)), view.obs_names)
        reversed_ = mdata[::-1]
        mosaic.check(Cohort(reversed_, schema).batch([4, 0, 19]), reversed_.obs_names[[4, 0, 19]])
        if not backed:
            for held in (mdata.copy(), view.copy()):
                mosaic.check(Cohort(held, schema).batch(slice(None)), held.obs_names)

    def test_nothing_is_written_to_the_mudata(self, mosaic: Any) -> None:
        mdata = mosaic.mdata()
        before = mdata.copy()
        Cohort(mdata, mosaic.schema(continuous=("age",))).batch(slice(None))
        pd.testing.assert_frame_equal(
            mdata.obs, before.obs, check_dtype=False
        )  # mudata 0.4 copies text as another type
        assert mdata.uns == before.uns
        for modality in mdata.mod:
            np.testing.assert_array_equal(mdata[modality].X, before[modality].X)


class TestQuery:
    def test_features_in_another_order_with_others_between_them(self, mosaic: Any) -> None:
        features = {m: [*mosaic.features(m)[::-1], f"{m}_99"] for m in mosaic.n_vars}
        mdata = mosaic.mdata(features=features)
        batch = Cohort(mdata, mosaic.schema()).batch(slice(None))
        mosaic.check(batch, mdata.obs_names)
        # what was not registered is not part of the library either
        torch.testing.assert_close(batch.size[RNA], batch.x[RNA].sum(1))

    def test_modalities_in_another_order(self, mosaic: Any) -> None:
        mdata = mosaic.mdata(modalities=[METH, RNA, PROT])
        mosaic.check(Cohort(mdata, mosaic.schema()).batch(slice(None)), mdata.obs_names)

    def test_an_absent_modality_is_missing_in_every_sample(self, mosaic: Any) -> None:
        mdata = mosaic.mdata(modalities=[PROT, METH])
        batch = Cohort(mdata, mosaic.schema()).batch(slice(None))
        mosaic.check(batch, mdata.obs_names, {**mosaic.measured, RNA: []})
        assert batch.x[RNA].shape == (0, 7) and batch.size[RNA].shape == (0,)

    def test_a_modality_of_other_samples_only(self, mosaic: Any) -> None:
        mdata = mosaic.mdata()
        mdata = MuData({RNA: mdata[RNA].copy(), PROT: mdata[PROT][:0].copy()})
        batch = Cohort(mdata, mosaic.schema()).batch([0, 1])
        assert batch.x[PROT].shape == (0, 5) and batch.x[RNA].shape == (2, 7)

    def test_missing_features_are_named(self, mosaic: Any) -> None:
        mdata = mosaic.mdata(features={PROT: mosaic.features(PROT)[2:]})
        with pytest.raises(ValueError, match=r"'prot.surface' lacks 2 of the 5 .* prot.surface_0, prot.surface_1\. "):
            Cohort(mdata, mosaic.schema())

    def test_no_modality_of_the_model(self, mosaic: Any) -> None:
        other = MuData({"x": AnnData(np.ones((2, 2), np.float32))})
        with pytest.raises(ValueError, match=r"none of the model's modalities \['rna', .*\['x'\]"):
            Cohort(other, mosaic.schema())

    def test_not_a_mudata(self, mosaic: Any) -> None:
        with pytest.raises(TypeError, match=r"expected a MuData, got AnnData; wrap modalities with mudata.MuData\(\{"):
            Cohort(mosaic.mdata()[RNA], mosaic.schema())  # type: ignore[arg-type]

    @pytest.mark.parametrize("axis", ["obs", "var"])
    def test_names_that_are_not_unique(self, mosaic: Any, axis: str) -> None:
        mdata = mosaic.mdata()
        names = list(getattr(mdata[RNA], f"{axis}_names"))
        setattr(mdata[RNA], f"{axis}_names", [names[1], *names[1:]])
        with pytest.raises(ValueError, match=rf"{axis}_names of modality 'rna' are not unique.*'{names[1]}'"):
            Cohort(mdata, mosaic.schema())

    def test_a_layer_that_is_not_there(self, mosaic: Any) -> None:
        schema = mosaic.schema()
        first = schema.modalities[0]
        schema = type(schema)((type(first)(first.name, "nb", first.var_names, layer="counts"), *schema.modalities[1:]))
        with pytest.raises(ValueError, match="'rna' has no layer 'counts'"):
            Cohort(mosaic.mdata(), schema)
        mdata = mosaic.mdata()
        mdata[RNA].layers["counts"] = mdata[RNA].X.copy()
        mdata[RNA].X = np.zeros_like(mdata[RNA].X)
        mosaic.check(Cohort(mdata, schema).batch(slice(None)), mdata.obs_names)


def test_positions_by_name_are_minus_one_where_absent(mosaic: Any) -> None:
    mdata = mosaic.mdata()
    rows = modality_rows(mdata, PROT)
    assert [mdata[PROT].obs_names[r] for r in rows[rows >= 0]] == [
        n for n in mdata.obs_names if n in mosaic.measured[PROT]
    ]
    assert set(mdata.obs_names[rows < 0]) == set(mosaic.samples) - set(mosaic.measured[PROT])
    assert (modality_rows(mdata, "other") == -1).all()
