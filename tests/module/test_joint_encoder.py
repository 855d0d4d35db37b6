"""CoVAE as published: conditioning by eq. (2), its pre-trained prior, and what it does with incomplete samples."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import omicvae
from omicvae.module import JointEncoderModule
from omicvae.nn import NetworkConfig
from omicvae.stats.gaussian import block_slices, standardise_blocks
from omicvae.train import pretrain_prior

NAMES, P, D = ("a", "b", "c"), 6, 2


@pytest.fixture
def module(make_schema) -> JointEncoderModule:
    torch.manual_seed(0)
    made = JointEncoderModule(
        make_schema(dict.fromkeys(NAMES, P)), NetworkConfig(n_hidden=8).resolve(5000), dict.fromkeys(NAMES, D)
    )
    factor = torch.randn(6, 6, dtype=torch.float64)
    made.set_prior(standardise_blocks(factor @ factor.mT + 3 * torch.eye(6), [D] * 3))
    return made.eval()


@pytest.fixture
def mosaic(make_batch):
    g = torch.Generator().manual_seed(1)
    present = torch.tensor([[1, 1, 1], [1, 0, 0], [0, 1, 1], [1, 1, 1]], dtype=torch.bool)
    return make_batch({m: torch.randn(4, P, generator=g) for m in NAMES}, present)


def test_incomplete_samples_follow_equation_two(module, mosaic):
    """Missing blocks: mean A mu_O and covariance A diag(s^2) A' + S_MM - A S_OM, with A = S_MO S_OO^-1."""
    evidence = module.encode(mosaic)
    q = module.posterior(evidence, mosaic, mosaic.present).gaussian
    S = module.prior_covariance
    observed = torch.tensor([False] * D + [True] * (2 * D))  # the third sample has b and c
    mu = torch.cat([evidence["b"].location[1], evidence["c"].location[1]]).double()
    variance = torch.cat([evidence["b"].scale[1], evidence["c"].scale[1]]).double().square()
    A = S[~observed][:, observed] @ torch.linalg.inv(S[observed][:, observed])
    torch.testing.assert_close(q.mean[2].double()[~observed], A @ mu, atol=1e-4, rtol=1e-4)
    residual = S[~observed][:, ~observed] - A @ S[observed][:, ~observed]
    expected = A @ torch.diag(variance) @ A.mT + residual
    torch.testing.assert_close(q.covariance()[2].double()[~observed][:, ~observed], expected, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(q.mean[2].double()[observed], mu)


def test_complete_samples_use_the_joint_encoder(module, mosaic):
    q = module.posterior(module.encode(mosaic), mosaic, mosaic.present).gaussian
    joint = module.joint_posterior(mosaic)
    torch.testing.assert_close(q.mean[[0, 3]], joint.mean[[0, 3]])
    torch.testing.assert_close(q.tril[[0, 3]], joint.tril[[0, 3]])


def test_joint_divergence_equals_torch(module, mosaic):
    q = module.joint_posterior(mosaic)
    reference = torch.distributions.kl_divergence(
        torch.distributions.MultivariateNormal(q.mean.double(), scale_tril=q.tril.double()),
        torch.distributions.MultivariateNormal(torch.zeros(6).double(), covariance_matrix=module.prior_covariance),
    )
    torch.testing.assert_close(q.kl(module.prior).double(), reference, atol=1e-3, rtol=1e-4)


def test_joint_term_is_for_complete_samples_only(module, mosaic):
    joint, *conditional = module.passes(module.encode(mosaic), mosaic, 0.0)
    assert joint.weights["a"].tolist() == [1, 0, 0, 1]
    assert joint.kl["joint"][0, 1:3].abs().max() == 0
    assert [one.weights["b"].tolist() for one in conditional] == [[1, 0, 0, 1], [1, 0, 1, 1], [1, 0, 1, 1]]
    total = joint.elbo_weight + sum(one.elbo_weight for one in conditional)
    torch.testing.assert_close(total, torch.ones(4))


def test_pretraining_estimates_the_correlation_on_samples_it_did_not_see():
    """Linear data, rho .8: held-out moments of Deep-CCA codes are near it; training samples would say more."""
    simulation = omicvae.datasets.correlated_gaussian(
        1500, modalities=("a", "b"), n_latent=3, n_vars=20, rho=0.8, noise=0.2, linear=True, seed=1
    )
    mdata = simulation.mdata
    omicvae.model.CoVAE.setup_mudata(mdata, likelihoods={"a": "normal", "b": "normal"})
    model = omicvae.model.CoVAE(mdata, n_latent=3, posterior="joint_encoder")
    module, cohort = model.module, model.adata_manager.cohort
    module.fit_statistics(lambda: [cohort.batch(slice(None))])
    pretrain_prior(module, lambda: [cohort.batch(slice(None))])
    block = module.prior_covariance[:3, 3:]
    assert torch.linalg.svdvals(block).mean().item() == pytest.approx(0.8, abs=0.08)  # 300 held-out samples
    torch.testing.assert_close(module.prior_covariance[:3, :3], torch.eye(3, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("pretraining", ["cca", "dcor"])
def test_the_prior_stays_fixed_and_the_model_imputes(pretraining):
    mdata = omicvae.datasets.correlated_gaussian(
        200, modalities=NAMES, n_latent=2, n_vars=10, missing=0.15, seed=2
    ).mdata
    omicvae.model.CoVAE.setup_mudata(mdata, likelihoods=dict.fromkeys(NAMES, "normal"))
    model = omicvae.model.CoVAE(mdata, n_latent=2, posterior="joint_encoder", pretraining=pretraining)
    seen = []
    original = model.module.set_prior
    model.module.set_prior = lambda *a, **k: (seen.append(1), original(*a, **k))[1]
    model.train(max_epochs=2, enable_progress_bar=False)
    assert len(seen) == 1, "Sigma is set by pre-training and then left alone"
    imputed = model.impute("c")
    assert np.isfinite(imputed.X).all() and (imputed.layers["sd"] > 0).all()


def test_too_few_complete_samples_are_refused():
    mdata = omicvae.datasets.correlated_gaussian(40, modalities=NAMES, n_latent=2, n_vars=10, missing=0.3, seed=3).mdata
    omicvae.model.CoVAE.setup_mudata(mdata, likelihoods=dict.fromkeys(NAMES, "normal"))
    model = omicvae.model.CoVAE(mdata, n_latent=8, posterior="joint_encoder")
    with pytest.raises(ValueError, match=r"training samples with all assays.*potentials"):
        model.train(max_epochs=1, enable_progress_bar=False)


def published(make_schema, n_vars: dict[str, int], widths: dict[str, int], **arguments) -> JointEncoderModule:
    torch.manual_seed(0)
    network = NetworkConfig(n_hidden=8).resolve(5000)
    return JointEncoderModule(make_schema(n_vars), network, widths, **arguments)


@pytest.mark.parametrize("widths", [(3, 3), (3, 2)])
def test_cross_diagonal_covariance(make_schema, make_batch, widths):
    """Eq. (5) of the paper: latent i of one assay goes with latent i of the other and with no other one."""
    names = NAMES[:2]
    made = published(
        make_schema, dict.fromkeys(names, P), dict(zip(names, widths, strict=True)), cross_diagonal=True
    ).eval()
    with torch.no_grad():
        made.joint_spread.weight.normal_()
    g = torch.Generator().manual_seed(2)
    batch = make_batch({m: torch.randn(5, P, generator=g) for m in names}, torch.ones(5, 2, dtype=torch.bool))
    covariance = made.joint_posterior(batch).covariance()
    a, b = block_slices(widths)
    sd = torch.diagonal(covariance, dim1=1, dim2=2).sqrt()
    correlation = covariance / (sd.unsqueeze(1) * sd.unsqueeze(2))
    for block in (a, b):
        inside = correlation[:, block, block]
        torch.testing.assert_close(inside, torch.eye(inside.shape[-1]).expand_as(inside), atol=1e-5, rtol=0)
    cross = correlation[:, a, b]
    pairs = torch.diagonal(cross, dim1=1, dim2=2)
    assert ((pairs > 0) & (pairs < 1)).all() and pairs.std() > 0.05
    away = ~torch.eye(*widths, dtype=torch.bool)
    assert cross[:, away].abs().max() < 1e-5


def test_cross_diagonal_is_for_two_modalities(make_schema):
    with pytest.raises(ValueError, match="for two modalities, there are 3"):
        published(make_schema, dict.fromkeys(NAMES, P), dict.fromkeys(NAMES, D), cross_diagonal=True)


def test_a_trained_prior_keeps_identity_blocks_and_has_the_gradient_of_the_objective(make_schema, mosaic):
    made = published(make_schema, dict.fromkeys(NAMES, P), dict.fromkeys(NAMES, D), trains_prior=True)
    factor = torch.randn(6, 6, dtype=torch.float64)
    start = standardise_blocks(factor @ factor.mT + 3 * torch.eye(6), [D] * 3)
    made.start_prior(start)
    torch.testing.assert_close(made.trained_prior().covariance.double(), start, atol=1e-6, rtol=1e-6)
    q = made.joint_posterior(mosaic)
    made.passes(made.encode(mosaic), mosaic, 0.0)[0].kl["joint"].sum().backward()
    gradient = made.prior_factor.grad.clone()

    def divergence(covariance: torch.Tensor) -> torch.Tensor:
        reference = torch.distributions.MultivariateNormal(torch.zeros(6).double(), covariance_matrix=covariance)
        complete = torch.distributions.MultivariateNormal(q.mean[[0, 3]].double(), scale_tril=q.tril[[0, 3]].double())
        return torch.distributions.kl_divergence(complete, reference).sum()

    with torch.no_grad():
        for step in (torch.randn(6, 6, dtype=torch.float64).tril() for _ in range(3)):
            ends = []
            for sign in (1, -1):
                made.prior_factor.add_(sign * 1e-3 * step)
                made.after_step(1)
                ends.append(divergence(made.prior_covariance))
                made.prior_factor.sub_(sign * 1e-3 * step)
            numeric = (ends[0] - ends[1]) / 2e-3
            assert (gradient * step).sum().item() == pytest.approx(numeric.item(), rel=0.02, abs=0.02)
        made.prior_factor.add_(0.3 * torch.randn(6, 6, dtype=torch.float64))
    made.after_step(1)
    for block in made.blocks.values():
        torch.testing.assert_close(
            made.prior_covariance[block, block], torch.eye(D, dtype=torch.float64), atol=1e-5, rtol=0
        )


@pytest.mark.parametrize(("posterior", "prior"), [("joint_encoder", "trained"), ("cross_diagonal", "pretrained")])
def test_options_of_the_appendix_impute_and_are_saved(posterior, prior, tmp_path):
    names = NAMES[:2]
    mdata = omicvae.datasets.correlated_gaussian(
        300, modalities=names, n_latent=2, n_vars=10, missing=0.15, seed=2
    ).mdata
    omicvae.model.CoVAE.setup_mudata(mdata, likelihoods=dict.fromkeys(names, "normal"))
    model = omicvae.model.CoVAE(mdata, n_latent=2, posterior=posterior, prior=prior)
    begun = []
    original = model.module.start_prior
    model.module.start_prior = lambda covariance: (begun.append(covariance.clone()), original(covariance))[1]
    model.train(max_epochs=3, enable_progress_bar=False)
    moved = (model.module.prior_covariance - begun[0]).abs().max().item()
    assert moved > 1e-3 if prior == "trained" else moved == 0
    imputed = model.impute("b")
    assert np.isfinite(imputed.X).all() and (imputed.layers["sd"] > 0).all()
    del model.module.start_prior
    model.save(tmp_path / "model", save_anndata=False)
    again = omicvae.model.CoVAE.load(tmp_path / "model", adata=mdata)
    torch.testing.assert_close(again.module.prior_covariance, model.module.prior_covariance)
    np.testing.assert_allclose(again.get_latent_representation(), model.get_latent_representation(), atol=1e-5)


def test_options_that_do_not_go_together_are_refused():
    mdata = omicvae.datasets.correlated_gaussian(60, modalities=NAMES, n_latent=2, n_vars=10, seed=3).mdata
    omicvae.model.CoVAE.setup_mudata(mdata, likelihoods=dict.fromkeys(NAMES, "normal"))
    with pytest.raises(ValueError, match="prior='trained' is an option of the published form"):
        omicvae.model.CoVAE(mdata, prior="trained")
    with pytest.raises(ValueError, match="prior must be one of"):
        omicvae.model.CoVAE(mdata, prior="frozen")
    with pytest.raises(ValueError, match="for two modalities, there are 3"):
        omicvae.model.CoVAE(mdata, posterior="cross_diagonal")
