from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from mudata import MuData
from scipy import stats

from omicvae.datasets import correlated_gaussian
from omicvae.model import CoVAE, MMVAEPlusPlus
from omicvae.tl import association

COLUMNS = [
    *("feature", "group", "reference", "estimate", "se", "statistic", "df", "pvalue", "padj"),
    *("fraction_missing_information", "n_measured", "n_imputed", "n_measured_reference", "n_imputed_reference"),
]
N_OBS = 120


def build_cohort() -> MuData:
    """RNA in all, proteins in 60 % and miRNA counts in 70 %; groups of all kinds."""
    mdata = correlated_gaussian(
        N_OBS,
        modalities=["rna", "protein", "mirna"],
        n_latent=3,
        n_vars={"rna": 20, "protein": 6, "mirna": 8},
        likelihoods={"mirna": "nb"},
        rho=0.9,
        missing={"protein": 0.4, "mirna": 0.3},
        nan_fraction={"protein": 0.1},
        library_sd=0.3,
        linear=True,
        seed=3,
    ).mdata
    rng = np.random.default_rng(0)
    mdata.obs["arm"] = pd.Categorical(rng.permutation(np.arange(N_OBS) % 3).astype(str))
    mdata.obs["arm"] = mdata.obs["arm"].cat.rename_categories({"0": "placebo", "1": "low", "2": "high"})
    mdata.obs.loc[mdata.obs_names[:5], "arm"] = np.nan
    mdata.obs["smoker"] = rng.random(N_OBS) < 0.5
    mdata.obs["age"] = rng.normal(60, 8, N_OBS)
    mdata.obs["center"] = rng.choice(["x", "y"], N_OBS)
    return mdata


@pytest.fixture(scope="module")
def fitted() -> CoVAE:
    """In closed form; tests must not change its data."""
    scvi.settings.seed = 0
    torch.set_num_threads(1)
    mdata = build_cohort()
    CoVAE.setup_mudata(mdata, likelihoods={"rna": "normal", "protein": "normal", "mirna": "nb"})
    model = CoVAE(mdata, backbone="moments")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        model.train(enable_progress_bar=False, accelerator="cpu")
    return model


@pytest.fixture
def cohort(fitted: CoVAE) -> MuData:
    """For a test to change."""
    return fitted.adata.copy()


def only_measured(mdata: MuData, modality: str) -> MuData:
    """The samples that have a modality."""
    return mdata[mdata.obs_names.isin(mdata[modality].obs_names)].copy()


def values_of(mdata: MuData, modality: str) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Measured values, and the ``.obs`` of the same samples."""
    frame = mdata[modality].to_df()
    return frame, mdata.obs.loc[frame.index]


# ---------------------------------------------------------------------- without imputed samples


def test_without_imputed_samples_it_is_the_t_test(cohort: MuData, fitted: CoVAE) -> None:
    mdata = only_measured(cohort, "protein")
    table = association(mdata, fitted, "protein", "arm", groups=["low"], reference="placebo")
    values, obs = values_of(mdata, "protein")
    one, two = (values[(obs["arm"] == a).to_numpy()] for a in ("low", "placebo"))
    expected = stats.ttest_ind(one, two, nan_policy="omit")
    assert list(table) == COLUMNS
    assert list(table["feature"]) == list(mdata["protein"].var_names)
    np.testing.assert_allclose(table["pvalue"], expected.pvalue, rtol=1e-4)
    np.testing.assert_allclose(table["statistic"], expected.statistic, rtol=1e-4)
    np.testing.assert_allclose(table["df"], expected.df)
    np.testing.assert_allclose(table["estimate"], one.mean().to_numpy() - two.mean().to_numpy(), rtol=1e-4)
    np.testing.assert_allclose(table["padj"], stats.false_discovery_control(table["pvalue"]), rtol=1e-6)
    np.testing.assert_array_equal(table["n_measured"], one.notna().sum())
    np.testing.assert_array_equal(table["n_measured_reference"], two.notna().sum())
    assert (table["n_imputed"] == 0).all()
    assert (table["fraction_missing_information"] == 0).all()


def test_each_group_against_the_rest(cohort: MuData, fitted: CoVAE) -> None:
    mdata = only_measured(cohort, "protein")
    table = association(mdata, fitted, "protein", "arm")
    assert list(table["group"].unique()) == ["high", "low", "placebo"]
    values, obs = values_of(mdata, "protein")
    for group, rows in table.groupby("group"):
        here, there = (obs["arm"] == group).to_numpy(), (obs["arm"].notna() & (obs["arm"] != group)).to_numpy()
        expected = stats.ttest_ind(values[here], values[there], nan_policy="omit").pvalue
        np.testing.assert_allclose(rows["pvalue"], expected, rtol=1e-4)
        np.testing.assert_allclose(rows["padj"], stats.false_discovery_control(rows["pvalue"]), rtol=1e-6)


def test_counts_are_compared_as_logarithms_at_one_library_size(cohort: MuData, fitted: CoVAE) -> None:
    mdata = only_measured(cohort, "mirna")
    table = association(mdata, fitted, "mirna", "smoker", groups=[True], reference=False)
    values, obs = values_of(mdata, "mirna")
    size = values.sum(axis=1)
    logs = np.log1p(values.div(size, axis=0) * fitted.module.size_priors.of("mirna").median.item())
    smoker = obs["smoker"].to_numpy(dtype=bool)
    expected = stats.ttest_ind(logs[smoker], logs[~smoker])
    np.testing.assert_allclose(table["statistic"], expected.statistic, rtol=1e-3)
    assert set(table["group"]) == {"True"}


def test_methylation_is_compared_as_levels(covae: CoVAE, mdata: MuData) -> None:
    here = only_measured(mdata, "meth")
    table = association(here, covae, "meth", "batch", groups=["batch_1"])
    with np.errstate(invalid="ignore"):
        levels = here["meth"].layers["methylated"] / here["meth"].layers["coverage"]
    first = (here.obs.loc[here["meth"].obs_names, "batch"] == "batch_1").to_numpy()
    expected = stats.ttest_ind(levels[first], levels[~first], nan_policy="omit")
    np.testing.assert_allclose(table["statistic"], expected.statistic, rtol=1e-3)


def test_adjusting_is_regression(cohort: MuData, fitted: CoVAE) -> None:
    mdata = only_measured(cohort, "protein")
    mdata.obs.loc[mdata.obs_names[-3:], "age"] = np.nan
    table = association(mdata, fitted, "protein", "smoker", groups=[True], adjust=["age", "center"])
    values, obs = values_of(mdata, "protein")
    kept = (values.iloc[:, 0].notna() & obs["age"].notna()).to_numpy()
    design = np.column_stack([obs["smoker"], np.ones(len(obs)), obs["age"] - 60, obs["center"] == "y"]).astype(float)
    coefficients, squares, *_ = np.linalg.lstsq(design[kept], values.iloc[kept, 0], rcond=None)
    variance = squares[0] / (kept.sum() - 4) * np.linalg.inv(design[kept].T @ design[kept])[0, 0]
    assert table["estimate"][0] == pytest.approx(coefficients[0], rel=1e-4)
    assert table["se"][0] == pytest.approx(variance**0.5, rel=1e-4)
    assert table["df"][0] == kept.sum() - 4


# ---------------------------------------------------------------------- with imputed samples


def test_samples_are_counted(cohort: MuData, fitted: CoVAE) -> None:
    table = association(cohort, fitted, "protein", "arm", n_imputations=3, seed=0).set_index("group")
    has = cohort.obs_names.isin(cohort["protein"].obs_names)
    for group in ("low", "high"):
        here = (cohort.obs["arm"] == group).to_numpy()
        rest = (cohort.obs["arm"].notna() & (cohort.obs["arm"] != group)).to_numpy()
        assert (table.loc[group, "n_imputed"] == (here & ~has).sum()).all()
        assert (table.loc[group, "n_imputed_reference"] == (rest & ~has).sum()).all()
        seen = cohort["protein"][cohort.obs_names[here & has]].to_df().notna().sum()
        np.testing.assert_array_equal(table.loc[group, "n_measured"], seen)
    assert np.isfinite(table.drop(columns=["feature", "reference"]).to_numpy(dtype=float)).all()
    assert (table["fraction_missing_information"].between(0, 1)).all()


def test_every_model_and_kind_of_data(model: CoVAE | MMVAEPlusPlus, mdata: MuData) -> None:
    """A tenth of 60 samples is too few to hold out: imputed samples may add nothing, but nothing breaks."""
    group = pd.Series(np.arange(mdata.n_obs) % 2 == 0, index=mdata.obs_names)
    mdata.obs["group"] = group
    for modality in ("mirna", "meth"):
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "no measured value of")
            table = association(mdata, model, modality, "group", groups=[True], adjust=["batch"], n_imputations=3)
        assert np.isfinite(table.drop(columns=["feature", "group", "reference"]).to_numpy(dtype=float)).all()
        assert (table["se"] > 0).all()
        assert (table["n_imputed"] > 0).all()


def test_imputed_samples_help_where_the_other_assays_tell_much(cohort: MuData, fitted: CoVAE) -> None:
    table = association(cohort, fitted, "protein", "smoker", groups=[True], n_imputations=50, seed=0)
    alone = association(only_measured(cohort, "protein"), fitted, "protein", "smoker", groups=[True])
    # RNA explains about two thirds of a protein: its 40 % missing values should be worth half as many measured ones.
    assert (table["se"] / alone["se"]).mean() < 0.92
    assert (np.abs(table["estimate"] - alone["estimate"]) < 2 * alone["se"]).all()
    assert table["fraction_missing_information"].mean() < 0.4


@pytest.mark.parametrize("modality", ["protein", "mirna"])
def test_what_was_measured_decides_where_sources_mislead(modality: str, cohort: MuData, fitted: CoVAE) -> None:
    """RNA that differs between groups for reasons of its own, in samples that are new to the model."""
    moved = cohort.copy()
    group = (moved.obs["smoker"]).to_numpy(dtype=bool)
    moved["rna"].X[group] += 2 * np.sign(np.arange(20) % 3 - 0.5).astype(np.float32)
    for adata in moved.mod.values():
        adata.obs_names = [f"new_{name}" for name in adata.obs_names]
    obs = moved.obs.set_axis([f"new_{name}" for name in moved.obs_names])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        new = MuData(dict(moved.mod))
    new.obs = obs.reindex(new.obs_names)
    table = association(new, fitted, modality, "smoker", groups=[True], n_imputations=50, seed=0)
    alone = association(only_measured(new, modality), fitted, modality, "smoker", groups=[True])
    naive = fitted.impute(modality, mdata=new, level=None)
    smoker = new.obs["smoker"].to_numpy(dtype=bool)
    means = naive.X[smoker].mean(0) - naive.X[~smoker].mean(0)
    assert (np.abs(means - alone["estimate"]) / alone["se"]).max() > 2  # predictions do mislead
    # Without them imputed samples move the estimate by less than it is uncertain; 40 % were imputed.
    assert (np.abs(table["estimate"] - alone["estimate"]) < alone["se"]).all()


def test_order_of_samples_and_features_does_not_matter(
    cohort: MuData, fitted: CoVAE, shuffled: Callable[[MuData], MuData]
) -> None:
    cohort.obs["batch"] = "one"  # which the fixture carries along
    moved = shuffled(cohort)
    moved.obs["arm"] = cohort.obs["arm"].reindex(moved.obs_names)
    first = association(cohort, fitted, "protein", "arm", n_imputations=100, seed=0)
    second = association(moved, fitted, "protein", "arm", n_imputations=100, seed=1)
    assert list(first["feature"]) == list(second["feature"])
    np.testing.assert_array_equal(first["n_measured"], second["n_measured"])
    # Each is a mean over 100 imputations, whose error is at most se / sqrt(100).
    assert (np.abs(first["estimate"] - second["estimate"]) < 5 * first["se"] * (2 / 100) ** 0.5).all()


def test_a_seed_repeats_the_result_and_leaves_the_generator_alone(cohort: MuData, fitted: CoVAE) -> None:
    state = torch.get_rng_state()
    features = list(cohort["protein"].var_names[[4, 1]])
    first = association(cohort, fitted, "protein", "arm", features=features, n_imputations=3, seed=7)
    assert (torch.get_rng_state() == state).all()
    pd.testing.assert_frame_equal(
        first, association(cohort, fitted, "protein", "arm", features=features, n_imputations=3, seed=7)
    )
    assert list(first["feature"][:2]) == features
    other = association(cohort, fitted, "protein", "arm", features=features, n_imputations=3, seed=8)
    assert (first["estimate"] != other["estimate"]).all()


def test_data_are_left_as_they_are(cohort: MuData, fitted: CoVAE) -> None:
    before = cohort.copy()
    association(cohort, fitted, "mirna", "arm", n_imputations=2)
    pd.testing.assert_frame_equal(cohort.obs, before.obs)
    for m in cohort.mod:
        np.testing.assert_array_equal(cohort[m].X, before[m].X)


def test_predictions_that_have_seen_the_values_are_not_used(
    cohort: MuData, fitted: CoVAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    def nothing(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no sample was held out")

    monkeypatch.setattr(fitted, "get_held_out_predictions", nothing)
    with pytest.warns(UserWarning, match="no measured value of 'protein' was predicted by a fit that had not seen it"):
        table = association(cohort, fitted, "protein", "smoker", groups=[True], n_imputations=200, seed=0)
    alone = association(only_measured(cohort, "protein"), fitted, "protein", "smoker", groups=[True])
    np.testing.assert_allclose(table["se"], alone["se"], rtol=0.15)
    assert (np.abs(table["estimate"] - alone["estimate"]) < 0.35 * alone["se"]).all()


def test_a_group_without_any_measured_sample_is_announced(cohort: MuData, fitted: CoVAE) -> None:
    rows = cohort["protein"].obs_names
    kept = rows[(cohort.obs.loc[rows, "arm"] != "high").to_numpy()]
    cohort.mod["protein"] = cohort["protein"][kept].copy()
    cohort.update()
    with pytest.warns(UserWarning, match="'protein' was measured in no sample of 'high'"):
        table = association(cohort, fitted, "protein", "arm", reference="placebo", n_imputations=5, seed=0)
    assert np.isfinite(table["pvalue"]).all()
    assert (table.loc[table["group"] == "high", "n_measured"] == 0).all()


def test_nothing_measured_at_all_rests_on_the_models_own_samples(cohort: MuData, fitted: CoVAE) -> None:
    del cohort.mod["protein"]
    cohort.update()
    with pytest.warns(UserWarning, match="was measured in no sample of 'False', 'True'"):
        table = association(
            cohort, fitted, "protein", "smoker", groups=[True], reference=False, n_imputations=100, seed=0
        )
    assert (table["n_measured"] == 0).all()
    assert (table["n_imputed"] + table["n_imputed_reference"] == N_OBS).all()
    means = fitted.impute("protein", mdata=cohort, level=None).X
    smoker = cohort.obs["smoker"].to_numpy(dtype=bool)
    difference = means[smoker].mean(0) - means[~smoker].mean(0)
    assert (np.abs(table["estimate"] - difference) < 0.5 * table["se"]).all()


def test_samples_without_any_source_are_left_out(cohort: MuData, fitted: CoVAE) -> None:
    kept = cohort["rna"].obs_names.isin(cohort["protein"].obs_names)
    cohort.mod["rna"] = cohort["rna"][kept].copy()
    cohort.update()
    table = association(cohort, fitted, "protein", "smoker", groups=[True], given=["rna"])
    assert (table[["n_imputed", "n_imputed_reference"]] == 0).all(axis=None)
    assert (association(cohort, fitted, "protein", "smoker", groups=[True], n_imputations=2)["n_imputed"] > 0).all()


def test_a_feature_with_too_few_values_is_nan_and_does_not_count_in_padj(cohort: MuData, fitted: CoVAE) -> None:
    mdata = only_measured(cohort, "protein")
    mdata["protein"].X[:, 2] = np.nan
    mdata["protein"].X[0, 2] = 1.0
    table = association(mdata, fitted, "protein", "smoker", groups=[True])
    assert table.loc[2, ["estimate", "se", "pvalue", "padj"]].isna().all()
    rest = table.drop(index=2)
    np.testing.assert_allclose(rest["padj"], stats.false_discovery_control(rest["pvalue"]), rtol=1e-6)


def test_what_is_confounded_in_measured_samples_is_not_guessed(cohort: MuData, fitted: CoVAE) -> None:
    rows = cohort["protein"].obs_names
    cohort.obs["kit"] = np.where(np.arange(N_OBS) % 2, "new", "old")
    cohort.obs.loc[rows, "kit"] = np.where(cohort.obs.loc[rows, "smoker"], "new", "old")
    table = association(cohort, fitted, "protein", "smoker", groups=[True], adjust=["kit"], n_imputations=2)
    assert table[["estimate", "se", "pvalue", "padj"]].isna().all(axis=None)
    table = association(cohort, fitted, "protein", "smoker", groups=[True], n_imputations=2)
    assert table["pvalue"].notna().all()


# ---------------------------------------------------------------------- wrong arguments


def test_wrong_arguments_are_named(cohort: MuData, fitted: CoVAE) -> None:
    def call(**changed: object) -> pd.DataFrame:
        arguments = {"modality": "protein", "groupby": "arm", **changed}
        return association(cohort, fitted, **arguments)  # type: ignore[arg-type]

    for error, match, changed in [
        (ValueError, "not trained on a modality 'proteins'", {"modality": "proteins"}),
        (ValueError, "groupby='arms' is not in mdata.obs. Did you mean 'arm'", {"groupby": "arms"}),
        (TypeError, "groupby='age' holds numbers, not groups", {"groupby": "age"}),
        (ValueError, "has no group 'lo'; it has 'high', 'low', 'placebo'. Did you mean 'low'", {"groups": ["lo"]}),
        (TypeError, r"write groups=\['low'\]", {"groups": "low"}),
        (ValueError, "has no group 'plcebo'", {"reference": "plcebo"}),
        (ValueError, "without the reference 'low'", {"groups": ["low"], "reference": "low"}),
        (ValueError, "groups must be different ones", {"groups": []}),
        (ValueError, "has no features 'nonsense'", {"features": ["nonsense"]}),
        (ValueError, "features is empty", {"features": []}),
        (ValueError, "given names 'protein'", {"given": ["protein"]}),
        (ValueError, "n_imputations must be a whole number of at least 2", {"n_imputations": 1}),
        (ValueError, "adjust='ages' is not in mdata.obs", {"adjust": ["ages"]}),
        (TypeError, "adjust must be a list", {"adjust": "age"}),
        (ValueError, "cannot be told from 'arm'", {"adjust": ["arm"]}),
    ]:
        with pytest.raises(error, match=match):
            call(**changed)
    with pytest.raises(TypeError, match="association expects a MuData"):
        association(cohort["rna"], fitted, "protein", "arm")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="expects a model"):
        association(cohort, cohort, "protein", "arm")  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="has not been trained"):
        association(cohort, CoVAE(fitted.adata), "protein", "arm")


def test_groups_that_are_too_small_are_named(cohort: MuData, fitted: CoVAE) -> None:
    labels = cohort.obs["arm"].astype(object)
    labels.iloc[[10, 11]] = ["alone", "single"]
    cohort.obs["arm"] = labels
    with pytest.raises(ValueError, match="'alone', 'single' have fewer than two usable samples"):
        association(cohort, fitted, "protein", "arm")
    assert len(association(cohort, fitted, "protein", "arm", groups=["low"], n_imputations=2)) == 6
    cohort.obs["arm"] = "everyone"
    with pytest.raises(ValueError, match="has 1 groups with usable samples"):
        association(cohort, fitted, "protein", "arm")
    cohort.obs["arm"] = np.where(np.arange(N_OBS) % 2, "rest", "work")
    with pytest.raises(ValueError, match="has a group called 'rest'"):
        association(cohort, fitted, "protein", "arm")


def test_a_model_without_its_data_cannot_tell_what_it_was_fitted_on(
    cohort: MuData, fitted: CoVAE, tmp_path: object
) -> None:
    fitted.save(tmp_path / "model")  # type: ignore[operator]
    loaded = CoVAE.load(tmp_path / "model", adata=False)  # type: ignore[operator]
    with pytest.raises(ValueError, match=r"loaded without data.*load\(dir, mdata\)"):
        association(cohort, loaded, "protein", "arm")
    mdata = only_measured(cohort, "protein")
    assert np.isfinite(association(mdata, loaded, "protein", "arm")["pvalue"]).all()
