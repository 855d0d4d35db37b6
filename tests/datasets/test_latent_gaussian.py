"""Simulated modalities have the latents, moments and gaps that their truth claims."""

from __future__ import annotations

import mudata
import numpy as np
import pandas as pd
import pytest

from omicvae.datasets import Simulation, Truth, correlated_gaussian

LIKELIHOODS = ["normal", "nb", "zinb", "poisson", "bernoulli", "beta", "betabinomial"]
THREE = ["rna", "mirna", "rppa"]


def stacked(truth: Truth) -> np.ndarray:
    return np.hstack(list(truth.latents.values()))


def random_sigma(dims: list[int], scale: float = 0.3) -> np.ndarray:
    """Full cross-blocks, identity diagonal blocks, positive definite since the norm of the cross part is below 1."""
    total = sum(dims)
    cross = np.random.default_rng(5).standard_normal((total, total))
    cross = cross + cross.T
    start = 0
    for d in dims:
        cross[start : start + d, start : start + d] = 0
        start += d
    return np.eye(total) + scale * cross / np.linalg.norm(cross, 2)


def everything(seed: int = 0) -> Simulation[Truth]:
    return correlated_gaussian(
        60,
        modalities=LIKELIHOODS,
        likelihoods=dict(zip(LIKELIHOODS, LIKELIHOODS, strict=True)),
        n_vars=4,
        missing=0.3,
        nan_fraction=0.1,
        library_sd=0.3,
        n_batches=2,
        seed=seed,
    )


@pytest.mark.parametrize("rho", [-0.4, 0.0, 0.6, 1.0])
def test_equicorrelated_latents_have_covariance_sigma(rho: float) -> None:
    n = 20_000
    truth = correlated_gaussian(n, modalities=3, n_latent=4, n_vars=2, rho=rho).truth
    expected = np.kron(np.where(np.eye(3, dtype=bool), 1.0, rho), np.eye(4))
    np.testing.assert_array_equal(truth.sigma, expected)
    # The standard error of a sample covariance is at most sqrt(2 / n); 78 of them stay within five.
    np.testing.assert_allclose(np.cov(stacked(truth), rowvar=False), expected, atol=5 * np.sqrt(2 / n))


def test_given_sigma_is_the_covariance_of_the_latents() -> None:
    n, dims = 20_000, {"rna": 3, "mirna": 1, "rppa": 2}
    sigma = random_sigma(list(dims.values()), scale=0.9)
    truth = correlated_gaussian(n, modalities=THREE, n_latent=dims, n_vars=2, sigma=sigma).truth
    assert {m: z.shape[1] for m, z in truth.latents.items()} == dims
    np.testing.assert_allclose(np.cov(stacked(truth), rowvar=False), sigma, atol=5 * np.sqrt(2 / n))


def test_unequal_dimensions_are_aligned_from_the_first() -> None:
    sigma = correlated_gaussian(5, modalities=["rna", "mirna"], n_latent={"rna": 3, "mirna": 2}, rho=0.5).truth.sigma
    np.testing.assert_array_equal(sigma[:3, 3:], [[0.5, 0], [0, 0.5], [0, 0]])


@pytest.mark.parametrize("linear", [True, False])
def test_signals_are_standardised(linear: bool) -> None:
    n = 20_000
    truth = correlated_gaussian(n, n_vars=40, linear=linear).truth
    for f in truth.signals.values():
        # Errors of a mean and a variance over n draws, and of the decoder's own standardisation over as many.
        np.testing.assert_allclose(f.mean(axis=0), 0, atol=5 * np.sqrt(2 / n))
        np.testing.assert_allclose(f.var(axis=0), 1, atol=5 * np.sqrt(4 / n))


def test_linear_signals_are_the_latents_times_the_loadings() -> None:
    truth = correlated_gaussian(200, n_latent=3, n_vars=30, linear=True).truth
    for m, f in truth.signals.items():
        np.testing.assert_allclose(f, truth.latents[m] @ truth.loadings[m], atol=1e-12)
        assert np.linalg.matrix_rank(f) == 3
        np.testing.assert_allclose(np.linalg.norm(truth.loadings[m], axis=0), 1)


def test_tanh_signals_are_not_linear_in_the_latents() -> None:
    truth = correlated_gaussian(500, n_latent=3, n_vars=30).truth
    assert truth.loadings == {}
    for m, f in truth.signals.items():
        z = np.hstack([truth.latents[m], np.ones((500, 1))])
        residual = f - z @ np.linalg.lstsq(z, f, rcond=None)[0]
        # Half a percent is far above rounding, and far below what saturating a tanh leaves to a linear fit.
        assert residual.var(axis=0).mean() > 0.005


def test_linear_normal_modalities_are_jointly_gaussian_with_known_covariance() -> None:
    n = 20_000
    noise = {"a": 0.3, "b": 0.6}
    truth = correlated_gaussian(n, modalities=["a", "b"], n_latent=2, n_vars=5, noise=noise, rho=0.7, linear=True).truth
    loadings = np.zeros((4, 10))
    loadings[:2, :5], loadings[2:, 5:] = truth.loadings["a"], truth.loadings["b"]
    expected = loadings.T @ truth.sigma @ loadings + np.diag(np.repeat([0.3**2, 0.6**2], 5))
    observed = np.cov(np.hstack([truth.complete["a"], truth.complete["b"]]), rowvar=False)
    # Variances are at most 1.36, so standard errors at most 1.36 sqrt(2 / n).
    np.testing.assert_allclose(observed, expected, atol=5 * 1.36 * np.sqrt(2 / n))


def conditional_variance(kind: str, truth: Truth) -> np.ndarray:
    mean, a = truth.expected["m"], truth.noise.get("m", 0.0)
    if kind == "zinb":
        mu = mean / 0.8
        return 0.8 * mu * (1 + mu * (a + 0.2))
    if kind == "betabinomial":
        trials = truth.coverage["m"].to_numpy()
        p = mean / trials
        return trials * p * (1 - p) * (1 + (trials - 1) * a)
    return {
        "normal": np.full_like(mean, a**2),
        "nb": mean + a * mean**2,
        "poisson": mean,
        "bernoulli": mean * (1 - mean),
        "beta": a * mean * (1 - mean),
    }[kind]


@pytest.mark.parametrize("kind", LIKELIHOODS)
def test_values_have_the_moments_of_their_likelihood(kind: str) -> None:
    # Noise of .2 makes the part of the variance that it causes, of beta-binomials too, far larger than the tolerance.
    noise = None if kind in ("poisson", "bernoulli") else 0.2
    truth = correlated_gaussian(2000, modalities=["m"], likelihoods=kind, n_vars=30, noise=noise, library_sd=0.2).truth
    residual = (truth.complete["m"].to_numpy() - truth.expected["m"]) / np.sqrt(conditional_variance(kind, truth))
    # Five standard errors, of a mean over 60 000 independent residuals and of their mean square.
    assert abs(residual.mean()) < 5 / np.sqrt(residual.size)
    assert abs((residual**2).mean() - 1) < 5 * (residual**2).std() / np.sqrt(residual.size)


@pytest.mark.parametrize("kind", LIKELIHOODS)
def test_values_stay_in_their_support_and_follow_the_signal(kind: str) -> None:
    simulation = correlated_gaussian(400, modalities=["m"], likelihoods={"m": kind}, n_vars=20)
    x, f = simulation.mdata["m"].X, simulation.truth.signals["m"]
    assert x.dtype == np.float32
    if kind != "normal":
        assert x.min() >= 0
    if kind == "beta":
        assert 0 < x.min() and x.max() < 1
    elif kind != "normal":
        np.testing.assert_array_equal(x, np.round(x))
    if kind == "bernoulli":
        assert set(np.unique(x)) == {0, 1}
    correlation = [np.corrcoef(x[:, j], f[:, j])[0, 1] for j in range(20)]
    assert np.median(correlation) > 0.25


def test_betabinomial_writes_methylated_counts_and_coverage() -> None:
    simulation = correlated_gaussian(50, modalities=["rna", "bs"], likelihoods={"bs": "betabinomial"}, missing=0.2)
    bs = simulation.mdata["bs"]
    assert set(bs.layers) - {None} == {"methylated", "coverage"}  # anndata 0.13 lists X as None
    np.testing.assert_array_equal(bs.X, bs.layers["methylated"])
    np.testing.assert_array_equal(bs.layers["coverage"], simulation.truth.coverage["bs"].loc[bs.obs_names])
    assert (bs.layers["methylated"] <= bs.layers["coverage"]).all() and bs.layers["coverage"].min() >= 1


def test_truth_is_aligned_by_name_where_assays_are_missing() -> None:
    simulation = correlated_gaussian(80, modalities=THREE, n_vars=6, noise=0.0, missing=0.4, seed=3)
    mdata, truth = simulation.mdata, simulation.truth
    assert list(mdata.obs_names) != sorted(mdata.obs_names)  # MuData's order is not the simulated one
    assert list(truth.present.index) == list(mdata.obs_names)
    for m in THREE:
        assert list(truth.complete[m].index) == list(mdata.obs_names)
        np.testing.assert_array_equal(mdata.obsm[m].ravel(), truth.present[m])
        np.testing.assert_array_equal(mdata[m].X, truth.complete[m].loc[mdata[m].obs_names, mdata[m].var_names])
        # Without noise a normal value is its signal: latents' and signals' rows are those of the values.
        np.testing.assert_allclose(truth.complete[m], truth.signals[m], atol=1e-6)
        rows = mdata.obs_names.get_indexer(mdata[m].obs_names)
        np.testing.assert_allclose(mdata[m].X, truth.signals[m][rows], atol=1e-6)


def test_latents_are_aligned_with_the_values_they_generated() -> None:
    truth = correlated_gaussian(80, n_latent=2, noise=0.0, missing=0.4, linear=True).truth
    for m, z in truth.latents.items():
        np.testing.assert_allclose(truth.complete[m], z @ truth.loadings[m], atol=1e-5)


def test_names() -> None:
    mdata = correlated_gaussian(3, modalities=["rna", "mirna"], n_vars={"rna": 2}).mdata
    assert list(mdata.obs_names) == ["sample_0001", "sample_0002", "sample_0003"]
    assert list(mdata["rna"].var_names) == ["rna_0001", "rna_0002"]
    assert mdata["mirna"].n_vars == 50
    assert list(correlated_gaussian(2, modalities=3).mdata.mod) == ["modality_1", "modality_2", "modality_3"]


@pytest.mark.parametrize("missing", [0.3, {"rna": 0.9, "mirna": 0.6, "rppa": 0.5}, {"rppa": 1 / 3}])
def test_fractions_missing_are_exact_and_no_sample_is_left_bare(missing: float | dict[str, float]) -> None:
    truth = correlated_gaussian(90, modalities=THREE, n_vars=2, missing=missing).truth
    fractions = missing if isinstance(missing, dict) else dict.fromkeys(THREE, missing)
    assert truth.present.any(axis=1).all()
    for m in THREE:
        assert (~truth.present[m]).sum() == round(90 * fractions.get(m, 0.0))


def test_hiding_assays_or_values_changes_nothing_else() -> None:
    settings = {"n_obs": 40, "modalities": THREE, "likelihoods": {"mirna": "nb"}, "n_vars": 3}
    full = correlated_gaussian(**settings).truth
    holes = correlated_gaussian(**settings, missing=0.4, nan_fraction=0.2).truth
    for m in THREE:
        pd.testing.assert_frame_equal(holes.complete[m].loc[full.complete[m].index], full.complete[m])


def test_explicit_missing_is_followed() -> None:
    absent = np.zeros((30, 3), bool)
    absent[:10, 0] = absent[5:20, 1] = True
    present = correlated_gaussian(30, modalities=THREE, n_vars=2, missing=absent).truth.present
    np.testing.assert_array_equal(present.sort_index(), ~absent)
    # A DataFrame is matched by name, whatever the order of its rows and columns.
    again = correlated_gaussian(30, modalities=THREE, n_vars=2, missing=~present.iloc[::-1, ::-1]).truth.present
    pd.testing.assert_frame_equal(again, present)


def test_nan_hides_single_values_of_continuous_modalities_only() -> None:
    simulation = correlated_gaussian(
        300, modalities=THREE, likelihoods={"mirna": "poisson", "rppa": "beta"}, nan_fraction=0.25
    )
    mdata, truth = simulation.mdata, simulation.truth
    assert not np.isnan(mdata["mirna"].X).any()
    for m in ("rna", "rppa"):
        x, complete = mdata[m].X, truth.complete[m].to_numpy()
        seen = ~np.isnan(x)
        # 15 000 independent coins: standard error .0035.
        assert abs(seen.mean() - 0.75) < 0.018
        np.testing.assert_array_equal(x[seen], complete[seen])
        assert not np.isnan(complete).any()


def test_batches_shift_every_feature_by_a_constant() -> None:
    simulation = correlated_gaussian(100, n_batches=3, n_vars=5, missing=0.3)
    batch, truth = simulation.mdata.obs["batch"], simulation.truth
    assert sorted(batch.value_counts()) == [33, 33, 34]
    shift = pd.DataFrame(truth.expected["modality_1"] - truth.signals["modality_1"], index=batch.index)
    per_batch = shift.groupby(batch, observed=True)
    np.testing.assert_allclose(per_batch.std(), 0, atol=1e-12)
    assert (per_batch.mean().std() > 0).all()


def test_library_multiplies_expected_counts() -> None:
    settings = {"n_obs": 500, "modalities": ["rna", "mirna"], "likelihoods": {"mirna": "nb"}}
    flat, varied = correlated_gaussian(**settings).truth, correlated_gaussian(**settings, library_sd=0.4).truth
    assert set(varied.library) == {"mirna"}
    np.testing.assert_allclose(varied.expected["mirna"], flat.expected["mirna"] * varied.library["mirna"][:, None])
    # Standard error of a standard deviation: .4 / sqrt(2 n) = .013.
    assert abs(np.log(varied.library["mirna"]).std() - 0.4) < 0.065


def test_equal_seeds_give_equal_data_and_others_do_not() -> None:
    first, again, other = everything(1), everything(1), everything(2)
    for m in LIKELIHOODS:
        pd.testing.assert_frame_equal(first.truth.complete[m], again.truth.complete[m])
        np.testing.assert_array_equal(first.mdata[m].X, again.mdata[m].X)
        assert not first.truth.complete[m].sort_index().equals(other.truth.complete[m].sort_index())
    assert not first.truth.present.sort_index().equals(other.truth.present.sort_index())


def test_survives_a_file(tmp_path) -> None:
    mdata = everything().mdata
    mdata.write_h5mu(tmp_path / "simulated.h5mu")
    read = mudata.read_h5mu(tmp_path / "simulated.h5mu")
    assert list(read.obs_names) == list(mdata.obs_names)
    assert list(read.obs["batch"].astype(str)) == list(mdata.obs["batch"].astype(str))
    for m in LIKELIHOODS:
        assert list(read[m].var_names) == list(mdata[m].var_names)
        np.testing.assert_array_equal(read[m].X, mdata[m].X)


@pytest.mark.parametrize(
    ("argument", "settings"),
    [
        ("n_obs", {"n_obs": 0}),
        ("n_obs", {"n_obs": 1}),
        ("n_obs", {"n_obs": 2.5}),
        ("modalities", {"modalities": 0}),
        ("modalities", {"modalities": []}),
        ("modalities", {"modalities": ["rna", "rna"]}),
        ("modalities", {"modalities": ["rna/1"]}),
        ("n_latent", {"n_latent": 0}),
        ("n_latent", {"n_latent": {"protein": 3}}),
        ("n_vars", {"n_vars": {"modality_1": -1}}),
        ("likelihoods", {"likelihoods": "gaussian"}),
        ("likelihoods", {"likelihoods": {"modality_1": None}}),
        ("rho", {"rho": 1.5}),
        ("rho", {"rho": -0.6, "modalities": 3}),
        ("rho", {"rho": float("nan")}),
        ("rho", {"rho": "high"}),
        ("rho and sigma", {"rho": 0.5, "sigma": np.eye(10)}),
        ("sigma", {"sigma": np.eye(3)}),
        ("sigma", {"sigma": np.full((10, 10), np.nan)}),
        ("sigma", {"sigma": 2 * np.eye(10)}),
        ("sigma", {"sigma": np.eye(2) + np.triu(np.full((2, 2), 0.5), 1), "n_latent": 1}),
        ("sigma", {"sigma": np.array([[1, 1.5], [1.5, 1]]), "n_latent": 1}),
        ("noise", {"noise": -0.1}),
        ("noise", {"noise": float("inf")}),
        ("noise", {"noise": 0.0, "likelihoods": "nb"}),
        ("noise", {"noise": 1.0, "likelihoods": "beta"}),
        ("noise", {"noise": {"modality_1": 0.1}, "likelihoods": "poisson"}),
        ("missing", {"missing": 1.0}),
        ("missing", {"missing": -0.1}),
        ("missing", {"missing": 0.6}),
        ("missing", {"missing": 0.1, "modalities": 1}),
        ("missing", {"missing": {"modality_1": 1.0}}),
        ("missing", {"missing": {"modality_1": 0.999}}),
        ("missing", {"missing": {"protein": 0.1}}),
        ("missing", {"missing": np.ones((20, 2), bool)}),
        ("missing", {"missing": np.zeros((20, 3), bool)}),
        ("missing", {"missing": np.zeros((20, 2))}),
        ("missing", {"missing": np.tile([True, False], (20, 1))}),
        ("missing", {"missing": pd.DataFrame(False, index=range(20), columns=["modality_1", "modality_2"])}),
        ("missing", {"missing": "half"}),
        ("nan_fraction", {"nan_fraction": 1.0}),
        ("nan_fraction", {"nan_fraction": 0.1, "likelihoods": "nb"}),
        ("nan_fraction", {"nan_fraction": {"modality_1": 0.1}, "likelihoods": {"modality_1": "nb"}}),
        ("library_sd", {"library_sd": -1}),
        ("n_batches", {"n_batches": 0}),
        ("n_batches", {"n_batches": 21}),
        ("seed", {"seed": -1}),
        ("seed", {"seed": None}),
    ],
)
def test_impossible_arguments_are_named(argument: str, settings: dict) -> None:
    with pytest.raises(ValueError, match=argument):
        correlated_gaussian(**{"n_obs": 20, "n_vars": 2, **settings})


def test_a_misspelt_likelihood_is_corrected() -> None:
    with pytest.raises(ValueError, match="Did you mean 'bernoulli'"):
        correlated_gaussian(20, likelihoods="bernouli")
