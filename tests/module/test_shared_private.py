"""What holds for every model with shared and private latents: no order and no company matters, labels, one-sample batches."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from omicvae.data import CategorySchema
from omicvae.module import (
    DMVAEModule,
    MMVAEModule,
    MMVAEPlusModule,
    MoPoEModule,
    MVAEModule,
    ScreenedModule,
    Shape,
)
from omicvae.nn import NetworkConfig
from omicvae.stats.location_scale import FAMILIES, Family

NAMES = ("a", "b", "c")
P = {"a": 5, "b": 3, "c": 4}
MODELS = {
    "mvae": (MVAEModule, 0, {"n_subsets": 0}),
    "mvae structured": (MVAEModule, 2, {"n_subsets": 0}),
    "mmvae": (MMVAEModule, 0, {}),
    "mmvae structured": (MMVAEModule, 2, {}),
    "mmvae laplace": (MMVAEModule, 2, {"family": "laplace", "n_samples": 3}),
    "mopoe": (MoPoEModule, 0, {}),
    "mopoe structured": (MoPoEModule, 2, {"private": "zero"}),
    "mmvae plus": (MMVAEPlusModule, 2, {}),
    "mmvae plus laplace": (MMVAEPlusModule, 2, {"family": "laplace", "n_samples": 3}),
    "dmvae": (DMVAEModule, 2, {}),
    "screened mmvae++": (ScreenedModule, 2, {}),
}
PRESENT = torch.tensor([[1, 1, 1], [1, 1, 0], [0, 1, 1], [1, 0, 0], [0, 0, 1], [1, 0, 1], [1, 1, 1]], dtype=torch.bool)


@pytest.fixture(params=list(MODELS))
def model(request) -> str:
    return request.param


@pytest.fixture
def build(make_schema):
    def made(model: str, names=NAMES, labels: bool = False, **kwargs):
        cls, width, arguments = MODELS[model]
        schema = make_schema({m: P[m] for m in names})
        if labels:
            schema = replace(schema, labels=CategorySchema("labels", "er", ("neg", "pos")))
        torch.manual_seed(0)
        shape = Shape(3, dict.fromkeys(names, width))
        return cls(schema, NetworkConfig(n_hidden=8).resolve(5000), shape, **arguments, **kwargs).eval()

    return made


@pytest.fixture
def values() -> dict[str, torch.Tensor]:
    g = torch.Generator().manual_seed(1)
    return {m: torch.randn(len(PRESENT), p, generator=g) for m, p in P.items()}


@pytest.fixture
def same_draws(monkeypatch):
    """Every latent gets the same noise in every row, and MoPoE the subset of everything a row has."""
    for name, family in list(FAMILIES.items()):
        monkeypatch.setitem(FAMILIES, name, Family(family.standard_log_density, lambda t: torch.full_like(t, 0.6)))
    monkeypatch.setattr(torch, "randn_like", lambda t: torch.full_like(t, 0.6))

    def largest(weights: torch.Tensor, n: int) -> torch.Tensor:
        size = torch.tensor([bin(code).count("1") for code in range(1, weights.shape[1] + 1)])
        return (size * (weights > 0)).argmax(1).expand(n, -1)

    monkeypatch.setattr("omicvae.module._mopoe.stratified_components", largest)


def losses(module, batch) -> torch.Tensor:
    """``(B,)`` objective."""
    passes = module.passes(module.encode(batch), batch, 0.5)
    return module.reduce(passes, module.log_likelihoods(passes, batch), 0.3).detach()


def moments(module, batch, given) -> list[torch.Tensor]:
    q = module.posterior(module.encode(batch), batch, given)
    return [t.detach() for t in q.project(torch.eye(q.mean.shape[-1]))]


def test_rows_and_company_do_not_matter(build, make_batch, values, same_draws, model):
    """Losses and posteriors of a row are the same in any order and in any part of the batch, alone as well."""
    module = build(model)
    batch = make_batch(values, PRESENT)
    loss, posterior = losses(module, batch), moments(module, batch, PRESENT)
    for rows in ([6, 2, 0, 5, 1, 4, 3], [3, 1], [4], [0]):
        part = make_batch({m: v[rows] for m, v in values.items()}, PRESENT[rows])
        torch.testing.assert_close(losses(module, part), loss[rows], atol=1e-4, rtol=1e-5)
        for found, expected in zip(moments(module, part, PRESENT[rows]), posterior, strict=True):
            torch.testing.assert_close(found, expected[rows], atol=1e-5, rtol=1e-5)


def test_order_of_modalities_does_not_matter(build, make_batch, values, same_draws, model):
    """The same networks, modalities registered in another order: same losses, same latents in their new places."""
    module = build(model)
    order = ("c", "a", "b")
    other = build(model, names=order)
    kinds = ["likelihoods", "decoders", "shared_encoders", "private_encoders"]
    for kind in kinds + (["private_decoders"] if isinstance(module, ScreenedModule) else []):
        for m in getattr(module, kind).names:
            getattr(other, kind).of(m).load_state_dict(getattr(module, kind).of(m).state_dict())
    columns = [NAMES.index(m) for m in order]
    batch = make_batch(values, PRESENT)
    moved = make_batch({m: values[m] for m in order}, PRESENT[:, columns])
    torch.testing.assert_close(losses(other, moved), losses(module, batch), atol=1e-4, rtol=1e-5)
    for kind, m in (("shared", None), ("private", "a"), ("private", "c")):
        read = [k.readout(kind, m).matrix for k in (module, other)]
        a = moments(module, batch, PRESENT)
        b = moments(other, moved, PRESENT[:, columns])
        for x, y in zip(a, b, strict=True):
            torch.testing.assert_close(x @ read[0], y @ read[1], atol=1e-5, rtol=1e-5)


def test_hidden_assays_count_as_absent(build, make_batch, values, model):
    """Leaving an assay out of ``given`` is the same as not having it, whatever its values are."""
    module = build(model)
    given = PRESENT & torch.tensor([True, False, True])
    hidden = moments(module, make_batch(values, PRESENT), given)
    absent = moments(module, make_batch(values, given), given)
    for x, y in zip(hidden, absent, strict=True):
        torch.testing.assert_close(x, y)


def test_without_sources_the_posterior_is_the_prior(build, make_batch, values, model):
    module = build(model)
    batch = make_batch(values, PRESENT)
    q = module.posterior(module.encode(batch), batch, torch.zeros_like(PRESENT))
    z = q.sample(4)
    torch.testing.assert_close(q.log_prob(z), module.prior_log_prob(z), atol=1e-4, rtol=1e-4)


def test_posterior_draws_have_its_moments(build, make_batch, values, model):
    """20000 draws: 5 standard errors of the mean, 10 % of the variance."""
    module = build(model)
    batch = make_batch(values, PRESENT)
    q = module.posterior(module.encode(batch), batch, PRESENT)
    mean, variance = moments(module, batch, PRESENT)
    z = q.sample(20_000).detach()
    assert ((z.mean(0) - mean).abs() <= 5 * (variance / 20_000).sqrt() + 1e-5).all()
    torch.testing.assert_close(z.var(0), variance, rtol=0.1, atol=1e-4)


def test_gradients_are_finite_and_reach_every_network(build, make_batch, values, model):
    """Mosaic with a sample of every pattern; at K = 1 and more."""
    module = build(model).train()
    if isinstance(module, ScreenedModule):  # features that did not pass have parameters of their own
        module.set_gates({m: (torch.arange(p) > 0).float() for m, p in P.items()})
    module.objective(make_batch(values, PRESENT), kl_weight=0.5, progress=0.5).loss.backward()
    for name, parameter in module.named_parameters():
        # the noise of directions, of which there are none here, and biases that centring takes out
        if name.startswith("turns.") or name.startswith("private_decoders.") and name.endswith("linear.bias"):
            assert not parameter.requires_grad
            continue
        assert parameter.grad is not None, name
        assert torch.isfinite(parameter.grad).all(), name
        if "raw_noise" not in name and "baselines" not in name:  # a baseline is for features that did not pass
            assert parameter.grad.abs().max() > 0, name


@pytest.mark.parametrize("model", ["mvae structured", "mmvae", "mmvae laplace", "mopoe structured"])
def test_labels_are_one_more_thing_to_predict(build, make_batch, values, same_draws, model):
    """Weight times the log-likelihood of the label at each pass's latents, with the pass's share; unknown ones add nothing."""
    labels = torch.tensor([0, 1, -1, 1, 0, -1, 1])
    batch = make_batch(values, PRESENT, labels)
    module = build(model, labels=True, label_weight=2.5)
    passes = module.passes(module.encode(batch), batch, 0.5)
    expected = torch.zeros(len(labels))
    counted = passes[:1] if model.startswith("mopoe") else passes
    for one in counted:
        z = next(iter(one.latents.values()))[..., :3]
        for i in torch.nonzero(labels >= 0).squeeze(-1).tolist():
            if one.sources[i].any():
                fit = torch.stack([module.classifier(draw[i]).log_softmax(-1)[labels[i]] for draw in z]).mean()
                share = 1 / PRESENT[i].sum() if model.startswith("mmvae") else 1.0
                expected[i] += 2.5 * share * fit
    found = module.label_term(passes, batch)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-5)
    assert found[2] == found[5] == 0
    weight = next(module.shared_encoders.of("a").parameters())
    (gradient,) = torch.autograd.grad(found.sum(), weight)
    assert gradient.abs().max() > 0


def test_gradient_of_labels_is_not_importance_weighted(build, make_batch, values, same_draws):
    """After the bound has put its weights on draws, the label term's gradient is what it was."""
    batch = make_batch(values, PRESENT, torch.tensor([0, 1, -1, 1, 0, -1, 1]))
    module = build("mmvae laplace", labels=True, label_weight=2.5)
    weight = next(module.shared_encoders.of("a").parameters())
    passes = module.passes(module.encode(batch), batch, 0.5)
    (before,) = torch.autograd.grad(module.label_term(passes, batch).sum(), weight, retain_graph=True)
    module.reduce(passes, module.log_likelihoods(passes, batch), 1.0)
    (after,) = torch.autograd.grad(module.label_term(passes, batch).sum(), weight)
    torch.testing.assert_close(after, before)


def test_label_weight_needs_labels(build, model):
    with pytest.raises(ValueError, match="labels_key"):
        build(model, label_weight=1.0)
