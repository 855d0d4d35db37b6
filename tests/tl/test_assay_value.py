from __future__ import annotations

from collections.abc import Sequence
from itertools import permutations
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import scvi
import torch
from anndata import AnnData
from mudata import MuData

from omicvae.datasets import correlated_gaussian
from omicvae.datasets._latent_gaussian import Truth
from omicvae.model import CoVAE, MMVAEPlusPlus
from omicvae.tl import assay_value

KEYS = ["obs", "candidate", "target"]
N_OBS = 700
WIDTH = 3
NOISE = 0.5
ROW_ERROR = 0.05  # four standard errors of a row: 128 draws of 30 features that each have noise of their own


def linked() -> np.ndarray:
    """Latents of three assays: ``b`` and ``c`` tell much about each other, ``a`` something about both."""
    sigma = np.eye(3 * WIDTH)
    for i, j, rho in ((0, 1, [0.8, 0.2, 0.3]), (0, 2, [0.5, 0.0, 0.3]), (1, 2, [0.8, 0.9, 0.7])):
        a, b = i * WIDTH + np.arange(WIDTH), j * WIDTH + np.arange(WIDTH)
        sigma[a, b] = sigma[b, a] = rho
    return sigma


def fit(mdata: MuData, epochs: int, **arguments: object) -> CoVAE:
    scvi.settings.seed = 0
    torch.set_num_threads(1)
    CoVAE.setup_mudata(mdata)
    model = CoVAE(mdata, n_latent=WIDTH, **arguments)
    model.train(max_epochs=epochs, accelerator="cpu", enable_progress_bar=False)
    return model


@pytest.fixture(scope="module")
def simulated() -> tuple[CoVAE, Truth]:
    """A linear CoVAE on linear-Gaussian data of which 100 samples have ``a`` alone and 50 have ``b`` alone."""
    missing = np.zeros((N_OBS, 3), dtype=bool)
    missing[:100, 1:] = True
    missing[100:150, [0, 2]] = True
    missing[150:200, 1] = True
    simulation = correlated_gaussian(
        N_OBS, modalities=["a", "b", "c"], n_latent=WIDTH, n_vars=30, sigma=linked(), noise=NOISE, linear=True,
        missing=missing, seed=1,
    )  # fmt: skip
    model = fit(simulation.mdata, 2, network={"n_layers": 0})
    for m in model.modalities:  # training starts at the linear model of the data, but the noise takes it long to learn
        torch.nn.init.constant_(model.module.likelihoods.of(m).raw_noise, np.log(NOISE / np.sqrt(1 + NOISE**2)))
    return model, simulation.truth


def new_samples(n: int) -> MuData:
    """Complete samples of the same kind, that the model was not trained on."""
    mdata = correlated_gaussian(
        N_OBS + n,
        modalities=["a", "b", "c"],
        n_latent=WIDTH,
        n_vars=30,
        sigma=linked(),
        noise=NOISE,
        linear=True,
        seed=1,
    ).mdata
    return mdata[N_OBS:].copy()


def by_algebra(
    sigma: np.ndarray,
    precision: Sequence[np.ndarray],
    loadings: Sequence[np.ndarray],
    noise: Sequence[np.ndarray],
    known: Sequence[int],
    target: int,
) -> float:
    """Root mean square over features of the predictive sd of a linear-Gaussian model, in the units of the loadings."""
    inverse = np.linalg.inv(sigma)
    for m in known:
        block = slice(m * WIDTH, (m + 1) * WIDTH)
        inverse[block, block] += precision[m]
    block = slice(target * WIDTH, (target + 1) * WIDTH)
    covariance = np.linalg.inv(inverse)[block, block]
    variance = np.einsum("dp,de,ep->p", loadings[target], covariance, loadings[target]) + noise[target] ** 2
    return float(np.sqrt(variance.mean()))


def test_it_is_the_closed_form_of_a_linear_model(simulated: tuple[CoVAE, Truth]) -> None:
    model, _ = simulated
    module = model.module
    loadings = [module.decoders.of(m).linear.weight.detach().double().numpy().T for m in model.modalities]
    noise = [module.likelihoods.of(m)._log_noise(torch.tensor(0)).exp().detach().numpy() for m in model.modalities]
    precision = [
        np.diag((torch.nn.functional.softplus(module.encoders.of(m).scale_bias) + 1e-4).detach().double().numpy())
        for m in model.modalities
    ]
    algebra = (module.prior_covariance.numpy(), precision, loadings, noise)
    table = assay_value(model)
    lacking = ~model._cohort(None).present
    seen = 0
    for row in table.groupby(KEYS[1:]).sample(5, random_state=0).itertuples():
        candidate, target = model.modalities.index(row.candidate), model.modalities.index(row.target)
        known = np.flatnonzero(~lacking[model.adata.obs_names.get_loc(row.obs)])
        assert row.sd_now == pytest.approx(by_algebra(*algebra, known, target), abs=ROW_ERROR)
        assert row.sd_then == pytest.approx(by_algebra(*algebra, [*known, candidate], target), abs=ROW_ERROR)
        seen += 1
    assert seen == 20  # (b, c), (c, b) in samples with a alone; (a, c), (c, a) in samples with b alone
    alone = table[table["obs"].isin(model.adata.obs_names[lacking[:, 1] & lacking[:, 2]])]
    for (candidate, target), part in alone.groupby(["candidate", "target"]):
        i, j = model.modalities.index(candidate), model.modalities.index(target)
        # the mean of 100 samples; 128 draws make a standard deviation 1/256 too small
        assert part["sd_now"].mean() == pytest.approx(by_algebra(*algebra, [0], j), abs=0.01)
        assert part["sd_then"].mean() == pytest.approx(by_algebra(*algebra, [0, i], j), abs=0.01)


def test_it_finds_the_truth_of_a_simulation(simulated: tuple[CoVAE, Truth]) -> None:
    model, truth = simulated
    loadings = [truth.loadings[m] for m in model.modalities]  # signals have variance 1
    precision = [W @ W.T / NOISE**2 for W in loadings]
    scale = np.sqrt(1 + NOISE**2)
    algebra = (truth.sigma, precision, [W / scale for W in loadings], [np.full(30, NOISE / scale)] * 3)
    found = assay_value(model).groupby(["candidate", "target"])[["sd_now", "sd_then", "reduction"]].mean()
    for (candidate, target), known in {("b", "c"): 0, ("c", "b"): 0, ("a", "c"): 1, ("c", "a"): 1}.items():
        i, j = model.modalities.index(candidate), model.modalities.index(target)
        now, then = by_algebra(*algebra, [known], j), by_algebra(*algebra, [known, i], j)
        row = found.loc[candidate, target]
        # loadings and correlations are estimated from 500 samples: standard errors of 0.02 or so
        assert row["sd_now"] == pytest.approx(now, abs=0.05)
        assert row["sd_then"] == pytest.approx(then, abs=0.05)
        assert row["reduction"] == pytest.approx(1 - then / now, abs=0.04)
    assert found.loc["b", "c"]["reduction"] > 0.1 > 0.05 > found.loc["a", "c"]["reduction"]


def test_errors_fall_as_much_as_was_said_once_the_assay_is_measured(simulated: tuple[CoVAE, Truth]) -> None:
    model, _ = simulated
    fresh = new_samples(400)
    said = assay_value(model, MuData({"a": fresh["a"].copy()})).groupby(["candidate", "target"])["reduction"].mean()
    for candidate, target in (("b", "c"), ("c", "b")):
        errors = []
        for given in (["a"], ["a", candidate]):
            predicted = model.impute(target, given=given, mdata=fresh, level=None)
            standard = (predicted.X - fresh[target].X) / np.asarray(model.module.likelihoods.of(target).input_scale)
            errors.append(np.sqrt((standard**2).mean()))
        # 400 samples of 30 features that go together in three dimensions
        assert 1 - errors[1] / errors[0] == pytest.approx(said[candidate, target], abs=0.04)


def test_what_was_measured_in_training_samples_comes_true(simulated: tuple[CoVAE, Truth]) -> None:
    """Errors in new samples fall as much as held-out ones did, within the standard error that is given."""
    model, _ = simulated
    fresh = new_samples(600)
    table = assay_value(model, MuData({"a": fresh["a"].copy()}), held_out=True)
    measured = table.groupby(["candidate", "target"])[["held_out", "held_out_se", "n_held_out"]]
    assert (measured.nunique() == 1).all(axis=None)  # all samples have the same assays
    complete = model._cohort(None).present[model._fitted_positions()].all(1).sum()
    for candidate, target in (("b", "c"), ("c", "b")):
        errors = []
        for given in (["a"], ["a", candidate]):
            predicted = model.impute(target, given=given, mdata=fresh, level=None)
            errors.append(((predicted.X - fresh[target].X) / fresh[target].X.std(0)) ** 2)
        fell = 1 - np.sqrt(errors[1].mean() / errors[0].mean())
        row = measured.first().loc[candidate, target]
        assert row["n_held_out"] == complete
        assert 0.002 < row["held_out_se"] < 0.03
        assert row["held_out"] == pytest.approx(fell, abs=4 * row["held_out_se"])  # new samples vary, too


def test_held_out_columns_are_empty_where_nothing_can_be_compared(
    simulated: tuple[CoVAE, Truth], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = simulated
    columns = [*KEYS, "sd_now", "sd_then", "reduction", "held_out", "held_out_se", "n_held_out"]
    complete = model.adata[model._cohort(None).present.sum(1) >= 2].copy()
    assert list(assay_value(model, complete, held_out=True)) == columns
    others = AnnData(np.zeros((2, 1), np.float32), obs=pd.DataFrame(index=["new_1", "new_2"]))
    nothing = assay_value(model, MuData({"a": model.adata["a"][:0].copy(), "unregistered": others}), held_out=True)
    assert len(nothing) == 2 * 6
    assert nothing["held_out"].isna().all()
    assert (nothing["n_held_out"] == 0).all()
    monkeypatch.setattr("omicvae.tl._held_out_value.LEAST_SCORES", 10_000)
    few = assay_value(model, model.adata[:2].copy(), held_out=True)
    assert few["held_out"].isna().all()
    assert few["n_held_out"].between(1, N_OBS).all()


def test_what_was_measured_agrees_with_held_out_predictions(covae: CoVAE, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of continuous values: errors of the predictive means in the same samples, apart from the noise of draws."""
    monkeypatch.setattr("omicvae.tl._held_out_value.LEAST_SCORES", 20)
    target = next(m for m in covae.modalities if covae.schema[m].likelihood == "normal")
    source, candidate = (m for m in covae.modalities if m != target)
    query = MuData({source: covae.adata[source][:3].copy()})
    (_, row), *_ = assay_value(covae, query, targets=[target], held_out=True).iterrows()
    scale = np.asarray(covae.module.likelihoods.of(target).input_scale)
    errors = []
    for given in ([source], [m for m in covae.modalities if m != target]):
        found = covae.get_held_out_predictions(target, given=given)
        found = found[found.obs["sources"] == "+".join(given)]
        errors.append(pd.Series(np.nanmean(((found.X - found.layers["imputed"]) / scale) ** 2, 1), found.obs_names))
    both = errors[0].index.intersection(errors[1].index)
    assert row["candidate"] == candidate
    assert row["n_held_out"] == len(both)
    assert row["held_out"] == pytest.approx(1 - np.sqrt(errors[1][both].mean() / errors[0][both].mean()), abs=0.02)


def test_rows_are_what_a_sample_lacks(covae: CoVAE) -> None:
    table = assay_value(covae)
    assert list(table) == [*KEYS, "sd_now", "sd_then", "reduction"]
    present = covae._cohort(None).present
    expected = [
        (name, c, t)
        for name, here in zip(covae.adata.obs_names, present, strict=True)
        for c, t in permutations([m for m, h in zip(covae.modalities, here, strict=True) if not h], 2)
    ]
    assert sorted(table[KEYS].itertuples(index=False, name=None)) == sorted(expected)
    assert len(expected) > 4
    assert table["obs"].map(covae.adata.obs_names.get_loc).is_monotonic_increasing


def test_every_likelihood_covariates_and_single_missing_values(covae: CoVAE) -> None:
    """Counts, methylated reads with coverage, batches unknown in a query, elements that are NaN."""
    query = MuData({"rna": covae.adata["rna"].copy()})
    query.obs["batch"] = covae.adata.obs["batch"].astype(object).reindex(query.obs_names)
    query.obs.iloc[:5, query.obs.columns.get_loc("batch")] = None
    table = assay_value(covae, query)
    assert len(table) == 2 * query.n_obs
    numbers = table[["sd_now", "sd_then", "reduction"]]
    assert np.isfinite(numbers).all(axis=None)
    assert (table["sd_then"] <= table["sd_now"] + 1e-6).all()
    assert table["reduction"].between(0, 1, inclusive="left").all()
    assert table["sd_now"].between(0.3, 2).all()
    np.testing.assert_allclose(table["reduction"], 1 - table["sd_then"] / table["sd_now"], atol=1e-6)


def test_expectations_do_not_depend_on_how_training_samples_are_read(
    covae: CoVAE, monkeypatch: pytest.MonkeyPatch
) -> None:
    query = covae.adata[:30].copy()
    table = assay_value(covae, query, batch_size=30)
    monkeypatch.setattr(scvi.settings, "batch_size", 2)  # some minibatches then lack an assay altogether
    again = assay_value(covae, query, batch_size=30)
    pd.testing.assert_frame_equal(table, again, rtol=1e-3)  # draws are the same, sums in another order


def test_an_assay_unrelated_to_the_others_is_worth_nothing() -> None:
    sigma = np.eye(3 * WIDTH)
    sigma[:WIDTH, WIDTH : 2 * WIDTH] = sigma[WIDTH : 2 * WIDTH, :WIDTH] = 0.8 * np.eye(WIDTH)
    mdata = correlated_gaussian(
        200, modalities=["a", "b", "alone"], n_latent=WIDTH, n_vars=30, sigma=sigma, linear=True, seed=0
    ).mdata
    model = fit(mdata, 1, network={"n_layers": 0})
    found = (
        assay_value(model, MuData({"b": mdata["b"][:50].copy()})).groupby(["candidate", "target"])["reduction"].mean()
    )
    # all that is left is what is clipped of sampling error, half of 0.01
    assert (found.loc[[("alone", "a"), ("a", "alone")]] < 0.01).all()
    only_alone = (
        assay_value(model, MuData({"alone": mdata["alone"][:50].copy()})).groupby("candidate")["reduction"].mean()
    )
    assert (only_alone > 0.1).all()


def test_size_of_minibatches_and_order_of_samples_do_not_matter(simulated: tuple[CoVAE, Truth]) -> None:
    model, _ = simulated
    query = model.adata[:150:3].copy()
    table = assay_value(model, query)
    pd.testing.assert_frame_equal(table, assay_value(model, query))
    for again in (assay_value(model, query, batch_size=7), assay_value(model, query[::-1].copy())):
        both = table.merge(again, on=KEYS, how="outer", validate="one_to_one")
        assert len(both) == len(table) == len(again)
        np.testing.assert_allclose(both["sd_now_x"], both["sd_now_y"], atol=1.5 * ROW_ERROR)
        np.testing.assert_allclose(both["sd_then_x"], both["sd_then_y"], atol=1.5 * ROW_ERROR)


def test_memory_is_bounded_without_changing_the_rows(
    simulated: tuple[CoVAE, Truth], monkeypatch: pytest.MonkeyPatch
) -> None:
    model, _ = simulated
    table = assay_value(model, model.adata[:40].copy())
    monkeypatch.setattr("omicvae.tl._assay_value.HELD", 3 * 128 * 30)
    again = assay_value(model, model.adata[:40].copy())
    pd.testing.assert_frame_equal(table[KEYS], again[KEYS])
    np.testing.assert_allclose(table["reduction"], again["reduction"], atol=1.5 * ROW_ERROR)


def test_candidates_and_targets_choose_rows(simulated: tuple[CoVAE, Truth]) -> None:
    model, _ = simulated
    query = model.adata[:20].copy()
    table = assay_value(model, query)
    chosen = assay_value(model, query, candidates=["c"], targets=["b", "c"])
    expected = table.query("candidate == 'c' and target == 'b'").reset_index(drop=True)
    pd.testing.assert_frame_equal(chosen[KEYS], expected[KEYS])
    np.testing.assert_allclose(chosen["reduction"], expected["reduction"], atol=1.5 * ROW_ERROR)
    assert assay_value(model, query, candidates=["b"], targets=["b"]).empty
    assert assay_value(model, query, candidates=[]).empty


def test_samples_that_lack_fewer_than_two_assays_have_no_row(simulated: tuple[CoVAE, Truth]) -> None:
    model, _ = simulated
    complete = model.adata[model._cohort(None).present.sum(1) >= 2].copy()
    table = assay_value(model, complete)
    assert list(table) == [*KEYS, "sd_now", "sd_then", "reduction"]
    assert table.empty
    one = model.adata[:1].copy()
    assert len(assay_value(model, one)) == 2


def test_a_sample_without_any_assay_starts_from_the_prior(simulated: tuple[CoVAE, Truth]) -> None:
    model, _ = simulated
    others = AnnData(np.zeros((2, 1), np.float32), obs=pd.DataFrame(index=["new_1", "new_2"]))
    table = assay_value(model, MuData({"a": model.adata["a"][:2].copy(), "unregistered": others})).set_index("obs")
    nothing, something = table.loc[["new_1", "new_2"]], table.drop(index=["new_1", "new_2"])
    assert len(nothing) == 2 * 6
    assert len(something) == 2 * 2
    assert nothing["sd_now"].between(0.9, 1.1).all()  # in units of the sd over training samples
    sds = [part.groupby("target")["sd_now"].mean()[["b", "c"]] for part in (nothing, something)]
    assert (sds[0] > sds[1]).all()


def test_other_models_and_wrong_arguments_are_refused(covae: CoVAE, mmvaepp: MMVAEPlusPlus, tmp_path: Path) -> None:
    with pytest.raises(TypeError, match="known before an assay is done .CoVAE., got MMVAEPlusPlus"):
        assay_value(mmvaepp)
    published = CoVAE(covae.adata, posterior="joint_encoder")
    published.is_trained_ = True
    with pytest.raises(TypeError, match="posterior='potentials'.: with posterior='joint_encoder' a network has to see"):
        assay_value(published)
    with pytest.raises(RuntimeError, match="has not been trained"):
        assay_value(CoVAE(covae.adata))
    with pytest.raises(TypeError, match=r"write candidates=\['rna'\]"):
        assay_value(covae, candidates="rna")
    with pytest.raises(ValueError, match="not trained on a modality 'mrna'"):
        assay_value(covae, targets=["mrna"])
    covae.save(tmp_path / "model")
    with pytest.raises(ValueError, match=r"load\(dir, mdata\)"):
        assay_value(CoVAE.load(tmp_path / "model", adata=False), covae.adata)
