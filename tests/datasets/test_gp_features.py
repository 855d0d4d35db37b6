"""Shared features can be predicted from the other modality, private ones cannot."""

from __future__ import annotations

import mudata
import numpy as np
import pytest
from sklearn.kernel_ridge import KernelRidge

from omicvae.datasets import GPTruth, Simulation, gp_features


@pytest.fixture(scope="module")
def simulation() -> Simulation[GPTruth]:
    return gp_features((15, 12), n_obs=600, seed=1)


def r2(source: np.ndarray, target: np.ndarray, gamma: float) -> np.ndarray:
    """Held-out R2 of each target column, fitted on the first four fifths."""
    n = int(0.8 * len(source))
    prediction = KernelRidge(kernel="rbf", gamma=gamma, alpha=0.1).fit(source[:n], target[:n]).predict(source[n:])
    return 1 - ((target[n:] - prediction) ** 2).mean(axis=0) / target[n:].var(axis=0)


def test_shapes_and_names(simulation: Simulation[GPTruth]) -> None:
    mdata, truth = simulation.mdata, simulation.truth
    assert {m: a.shape for m, a in mdata.mod.items()} == {"x1": (600, 25), "x2": (600, 22)}
    assert truth.shared.shape == (600, 2)
    assert {m: z.shape for m, z in truth.private.items()} == {"x1": (600, 2), "x2": (600, 2)}
    for adata in mdata.mod.values():
        assert adata.var["shared"].dtype == bool
        assert list(np.flatnonzero(adata.var["shared"])) == list(range(10))


@pytest.mark.parametrize(("source", "target"), [("x1", "x2"), ("x2", "x1")])
def test_shared_features_are_predictable_across_modalities(simulation, source: str, target: str) -> None:
    x, y = simulation.mdata[source].X, simulation.mdata[target].X
    # The ceiling is 1 / (1 + .15^2) = .978.
    assert np.median(r2(x[:, :10], y[:, :10], gamma=0.03)) > 0.9


@pytest.mark.parametrize(("source", "target"), [("x1", "x2"), ("x2", "x1")])
def test_private_features_are_not(simulation, source: str, target: str) -> None:
    x, y = simulation.mdata[source].X, simulation.mdata[target].X
    assert np.median(r2(x[:, :10], y[:, 10:], gamma=0.03)) < 0.05


def test_private_features_are_functions_of_their_private_latent(simulation) -> None:
    for m, z in simulation.truth.private.items():
        scores = r2(z, simulation.truth.signals[m], gamma=0.5)
        assert np.median(scores[10:]) > 0.95
        assert np.median(scores[:10]) < 0.05


def test_signals_are_standardised_before_noise_is_added(simulation) -> None:
    for m, f in simulation.truth.signals.items():
        np.testing.assert_allclose(f.mean(axis=0), 0, atol=1e-10)
        np.testing.assert_allclose(f.var(axis=0), 1)
        # Over 13 000 residuals the standard error of the standard deviation is .15 / sqrt(2 x 13 000) = .001.
        assert abs((simulation.mdata[m].X - f).std() - 0.15) < 0.005


def test_latents_are_uniform(simulation) -> None:
    truth = simulation.truth
    for z in (truth.shared, *truth.private.values()):
        assert np.abs(z).max() < 2
        # Variance 4/3 with standard error sqrt(16/5 - 16/9) / sqrt(n) = .049.
        np.testing.assert_allclose(z.var(axis=0), 4 / 3, atol=0.25)


def test_label_is_the_sign_of_the_first_shared_latent(simulation) -> None:
    label = simulation.mdata.obs["label"]
    assert list(label.cat.categories) == ["0", "1"]
    np.testing.assert_array_equal(label == "1", simulation.truth.shared[:, 0] > 0)


def test_rotation_mixes_all_features_and_can_be_undone() -> None:
    plain, rotated = (gp_features((6, 3), n_obs=50, n_shared=4, rotate=r, seed=2) for r in (False, True))
    for m, rotation in rotated.truth.rotations.items():
        np.testing.assert_allclose(rotation @ rotation.T, np.eye(len(rotation)), atol=1e-12)
        assert rotated.mdata[m].var["shared"].all()
        np.testing.assert_allclose(rotated.mdata[m].X @ rotation.T, plain.mdata[m].X, atol=1e-5)
        np.testing.assert_allclose(rotated.truth.signals[m] @ rotation.T, plain.truth.signals[m], atol=1e-10)
    assert plain.truth.rotations == {}


def test_sizes_follow_the_arguments() -> None:
    simulation = gp_features((0, 5), n_shared=3, n_obs=20, n_latent=(4, 3, 1))
    assert [a.n_vars for a in simulation.mdata.mod.values()] == [3, 8]
    assert simulation.truth.shared.shape == (20, 3)
    assert [z.shape[1] for z in simulation.truth.private.values()] == [4, 1]
    assert not gp_features((2, 2), n_shared=0, n_obs=20, rotate=True).mdata["x1"].var["shared"].any()


def test_equal_seeds_give_equal_data_and_others_do_not() -> None:
    first, again, other = (gp_features((4, 4), n_obs=30, seed=s).mdata["x1"].X for s in (0, 0, 1))
    np.testing.assert_array_equal(first, again)
    assert np.abs(first - other).min() > 0


def test_survives_a_file(simulation, tmp_path) -> None:
    simulation.mdata.write_h5mu(tmp_path / "gp.h5mu")
    read = mudata.read_h5mu(tmp_path / "gp.h5mu")
    assert list(read.obs["label"].astype(str)) == list(simulation.mdata.obs["label"].astype(str))
    assert list(read["x2"].var["shared"]) == list(simulation.mdata["x2"].var["shared"])


@pytest.mark.parametrize(
    ("argument", "settings"),
    [
        ("n_private", {"n_private": 20}),
        ("n_private", {"n_private": (20, -1)}),
        ("n_private", {"n_private": (0, 5), "n_shared": 0}),
        ("n_shared", {"n_shared": 1.5}),
        ("n_obs", {"n_obs": 0}),
        ("n_obs", {"n_obs": 1}),
        ("n_latent", {"n_latent": (2, 2)}),
        ("n_latent", {"n_latent": (2, 0, 2)}),
        ("noise", {"noise": -1.0}),
        ("seed", {"seed": -3}),
    ],
)
def test_impossible_arguments_are_named(argument: str, settings: dict) -> None:
    with pytest.raises(ValueError, match=argument):
        gp_features(**{"n_obs": 10, **settings})


def test_even_features_do_not_tell_a_latent_from_its_negative() -> None:
    """Two samples whose shared latents differ in sign alone have the same signal; of x1, not."""
    truth = gp_features((5, 5), n_obs=800, n_latent=(1, 1, 1), noise=0, even=True, seed=0).truth
    z = truth.shared[:, 0]
    mirrored = np.abs(-z[:, None] - z[None]).argmin(1)
    close = np.abs(z + z[mirrored]) < 0.002
    assert close.sum() > 50
    difference = {m: np.abs(f[close, :10] - f[mirrored[close], :10]).mean() for m, f in truth.signals.items()}
    assert difference["x2"] < 0.03
    assert difference["x1"] > 0.3
