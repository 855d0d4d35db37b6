"""Batches, labels, covariates and size factors of every sample, matched by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from mudata import MuData

from omicvae.data import CategorySchema, Cohort, ModalitySchema, Schema
from omicvae.data._fields import as_categories

RNA, PROT, METH = "rna", "prot.surface", "méthylation"


def codes(mdata: MuData, mosaic: Any, category: CategorySchema) -> dict[str, int]:
    cohort = Cohort(mdata, mosaic.schema(categorical=(category,)))
    found = cohort.batch(slice(None)).codes[category.name]
    assert found.dtype == torch.int64
    return dict(zip(cohort.obs_names, found.tolist(), strict=True))


class TestCategories:
    CENTER = CategorySchema("batch", "center", ("A", "B"))

    def test_codes_follow_the_sample(self, mosaic: Any) -> None:
        found = codes(mosaic.mdata(), mosaic, self.CENTER)
        assert found == {s: int(s[1:]) % 2 for s in mosaic.samples}

    @pytest.mark.parametrize("dtype", [object, "category", "string"])
    def test_gaps_and_categories_never_seen_are_minus_one(self, mosaic: Any, dtype: str) -> None:
        mdata = mosaic.mdata()
        center = mdata.obs["center"].astype(object)
        center["s00"], center["s01"], center["s02"] = np.nan, "C", None
        mdata.obs["center"] = center.astype(dtype)
        found = codes(mdata, mosaic, self.CENTER)
        assert [found[s] for s in mosaic.samples[:5]] == [-1, -1, -1, 1, 0]

    def test_a_column_that_a_query_lacks_is_unknown_in_every_sample(self, mosaic: Any) -> None:
        mdata = mosaic.mdata()
        del mdata.obs["center"]
        assert set(codes(mdata, mosaic, self.CENTER).values()) == {-1}

    @pytest.mark.parametrize(
        "column",
        [[1, 2, 1], ["1", "2", "1"], [1.0, 2.0, 1.0], pd.Categorical([1, 2, 1]), pd.array([1, 2, 1], dtype="Int64")],
    )
    def test_whole_numbers_are_the_same_category_however_they_are_stored(self, column: Any) -> None:
        assert as_categories(pd.Series(column)).tolist() == ["1", "2", "1"]

    @pytest.mark.parametrize("column", [[1, None, 2], [1.0, np.nan, 2.0], pd.array([1, None, 2], dtype="Int64")])
    def test_a_gap_does_not_rename_the_others(self, column: Any) -> None:
        """pandas turns whole numbers into floats where one is missing; 1.0 is still batch 1."""
        found = as_categories(pd.Series(column))
        assert found.isna().tolist() == [False, True, False]
        assert found.dropna().tolist() == ["1", "2"]

    def test_other_values_keep_their_text(self) -> None:
        assert as_categories(pd.Series([0.5, True, "x y", 1e20], dtype=object)).tolist() == [
            "0.5",
            "True",
            "x y",
            "100000000000000000000",
        ]

    def test_a_batch_of_one_modality_is_read_from_its_own_rows(self, mosaic: Any) -> None:
        """And is not known for a sample without that modality, nor where the query lacks the modality."""
        mdata = mosaic.mdata()
        mdata[PROT].obs["run"] = ["even" if int(s[1:]) % 2 == 0 else "odd" for s in mdata[PROT].obs_names]
        category = CategorySchema(f"batch_{PROT}", "run", ("even", "odd"), PROT)
        expected = {s: int(s[1:]) % 2 if s in mosaic.measured[PROT] else -1 for s in mosaic.samples}
        assert codes(mdata, mosaic, category) == expected
        mdata.mod[PROT]._inplace_subset_obs(np.random.default_rng(0).permutation(12))
        assert codes(mdata, mosaic, category) == expected
        assert set(codes(mosaic.mdata(modalities=[RNA, METH]), mosaic, category).values()) == {-1}

    def test_a_modalitys_batch_enters_its_own_networks_only(self) -> None:
        one, all_ = CategorySchema(f"batch_{PROT}", "run", ("x",), PROT), CategorySchema("cat_sex", "sex", ("f", "m"))
        schema = Schema((ModalitySchema(RNA, "nb", ("g",)), ModalitySchema(PROT, "normal", ("p",))), (one, all_))
        assert schema.covariates_of(RNA) == (all_,) and schema.covariates_of(PROT) == (one, all_)

    def test_labels_may_have_gaps(self, mosaic: Any) -> None:
        mdata = mosaic.mdata()
        mdata.obs["class"] = [s if int(s[1:]) < 3 else None for s in mdata.obs_names]
        schema = mosaic.schema(labels=CategorySchema("labels", "class", ("s00", "s01", "s02")))
        cohort = Cohort(mdata, schema)
        batch = cohort.batch(cohort.obs_names.get_indexer(["s02", "s07", "s00"]))
        assert batch.labels.tolist() == [2, -1, 0]
        assert Cohort(mdata, mosaic.schema()).batch([0, 1]).labels.tolist() == [-1, -1]


class TestContinuous:
    def test_follow_the_sample_and_keep_gaps(self, mosaic: Any) -> None:
        mdata = mosaic.mdata()
        mdata.obs.loc["s03", "age"] = np.nan
        mdata.obs["smoker"] = pd.array([int(s[1:]) > 9 for s in mdata.obs_names], dtype="boolean")
        cohort = Cohort(mdata, mosaic.schema(continuous=("smoker", "age")))
        found = cohort.batch(cohort.obs_names.get_indexer(["s12", "s03"])).continuous
        assert found.dtype == torch.float32
        np.testing.assert_array_equal(found.numpy(), [[1, 62], [0, np.nan]])
        assert Cohort(mdata, mosaic.schema()).batch([0, 1, 2]).continuous.shape == (3, 0)

    @pytest.mark.parametrize(
        ("column", "message"),
        [
            (None, r"continuous covariates \['age'\] are not in mdata.obs"),
            ("old", r"continuous covariate 'age' holds .* values, not numbers"),
            (np.inf, r"continuous covariate 'age' is infinite in 20 samples, first 's"),
        ],
    )
    def test_what_a_query_cannot_give_is_said(self, mosaic: Any, column: Any, message: str) -> None:
        mdata = mosaic.mdata()
        del mdata.obs["age"]
        if column is not None:
            mdata.obs["age"] = column
        with pytest.raises(ValueError, match=message):
            Cohort(mdata, mosaic.schema(continuous=("age",)))


class TestSizes:
    def schema(self, mosaic: Any) -> Schema:
        plain = mosaic.schema()
        first = ModalitySchema(RNA, "nb", plain.modalities[0].var_names, size_factor_key="depth")
        return Schema((first, *plain.modalities[1:]))

    def test_without_factors_the_size_is_the_sum_of_what_was_registered_and_at_least_one(self, mosaic: Any) -> None:
        mdata = mosaic.mdata()
        mdata[RNA].X[list(mdata[RNA].obs_names).index("s05")] = 0
        cohort = Cohort(mdata, mosaic.schema())
        samples = ["s05", "s06", "s11"]
        size = cohort.batch(cohort.obs_names.get_indexer(samples)).size
        assert size[RNA].tolist() == [1.0, *mosaic.table(RNA, samples[1:]).sum(1)]
        np.testing.assert_allclose(size[METH], np.nansum(mosaic.table(METH, ["s11"]), 1))

    def test_factors_follow_the_sample(self, mosaic: Any) -> None:
        mdata = mosaic.mdata()
        mdata[RNA].obs["depth"] = [0.5 + int(s[1:]) for s in mdata[RNA].obs_names]
        for _ in range(2):
            cohort = Cohort(mdata, self.schema(mosaic))
            size = cohort.batch(cohort.obs_names.get_indexer(["s12", "s18", "s03"])).size[RNA]
            assert size.tolist() == [12.5, 3.5]  # s18 has no rna
            mdata.mod[RNA]._inplace_subset_obs(np.random.default_rng(1).permutation(17))

    @pytest.mark.parametrize(
        ("wrong", "message"),
        [
            (
                0.0,
                "size factor 'depth' of modality 'rna' must be positive in every sample; it is not in 1, first 's07'",
            ),
            (np.nan, "must be positive in every sample; it is not in 1, first 's07'"),
            (-np.inf, "size factor 'depth' of modality 'rna' is infinite in 1 samples, first 's07'"),
            ("deep", "size factor 'depth' of modality 'rna' holds .* values, not numbers"),
        ],
    )
    def test_impossible_factors_are_named(self, mosaic: Any, wrong: Any, message: str) -> None:
        mdata = mosaic.mdata()
        depth = pd.Series(1.0, index=mdata[RNA].obs_names, dtype=object if isinstance(wrong, str) else float)
        depth["s07"] = wrong
        mdata[RNA].obs["depth"] = depth
        with pytest.raises(ValueError, match=message):
            Cohort(mdata, self.schema(mosaic))

    def test_factors_that_a_query_lacks(self, mosaic: Any) -> None:
        with pytest.raises(ValueError, match=r"size factor 'depth' is not in mdata\['rna'\].obs"):
            Cohort(mosaic.mdata(), self.schema(mosaic))


def test_coverage_is_packed_like_its_values(mosaic: Any) -> None:
    mdata = mosaic.mdata()
    mdata[METH].layers["reads"] = np.nan_to_num(mdata[METH].X) + 7
    plain = mosaic.schema()
    last = ModalitySchema(METH, "betabinomial", plain.modalities[2].var_names, coverage_layer="reads")
    schema = Schema((*plain.modalities[:2], last))
    batch = Cohort(mdata, schema).batch([3, 17, 0])
    torch.testing.assert_close(batch.coverage[METH], batch.x[METH].nan_to_num() + 7)
    assert set(batch.coverage) == {METH}
    absent = Cohort(mosaic.mdata(modalities=[RNA, PROT]), schema).batch([0, 1])
    assert absent.coverage[METH].shape == (0, 4)
