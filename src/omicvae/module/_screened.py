"""MMVAE++ that survives private variation: features are screened, shared latents come first, private ones after."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from omicvae.data import Batch, Schema
from omicvae.module._mmvae_plus_plus import MMVAEPlusPlusModule
from omicvae.module._per_modality import PerModality
from omicvae.module._records import Evidence
from omicvae.module._shared_private import LEAST_SD, Shape
from omicvae.module._turned import Turned
from omicvae.nn import Decoder, NetworkConfig
from omicvae.nn.likelihoods import OWN, Normal, Observed
from omicvae.stats.shared_directions import Directions

STANDARD = math.log(math.expm1(1 - LEAST_SD))  # raw scale of a posterior whose sd is 1
N_CENTRE = 64
"""Draws of a private latent that its effect is centred by."""


class Baseline(nn.Module):
    """Link-scale parameters from covariates alone."""

    def __init__(self, n_design: int, n_vars: int, n_heads: int) -> None:
        super().__init__()
        self.n_vars, self.n_heads = n_vars, n_heads
        self.bias = nn.Parameter(torch.zeros(n_heads, n_vars))
        self.effects = nn.Parameter(torch.zeros(n_design, n_heads * n_vars)) if n_design else None

    def forward(self, design: Tensor | None) -> Tensor:
        """``(..., n_heads, n_vars)`` from covariates ``(..., n_design)``."""
        if design is None or self.effects is None:
            return self.bias
        return self.bias + (design @ self.effects).unflatten(-1, (self.n_heads, self.n_vars))


class ScreenedModule(MMVAEPlusPlusModule):
    r"""MMVAE++ :cite:p:`martens2024disentangling` in two stages, on features screened across modalities.

    As published, many features that only private variation drives drown what the assays share: the shared latents
    memorise them, and the shared encoders read them. Here

    .. math::
        \eta_m = s_m \odot f_m(z_{sh}) + \big[ h_m(z_{pr_m}) - E_{p(z_{pr_m})} h_m \big],

    with :math:`s_m` the features that another assay predicts (:mod:`omicvae.stats.screening`), and covariates in
    :math:`f_m`, or alone where :math:`s_m = 0`. Shared encoders read the features that passed, weighted by how well they are
    predicted.

    Where features all mix what is shared with what is not, :math:`f_m` is confined to directions that another assay
    predicts, :math:`f_m = B_m' g_m` (:mod:`omicvae.stats.shared_directions`): the shared encoder then reads coordinates
    along them, and the first stage explains these coordinates. For normal likelihoods only.

    *First stage* (:func:`omicvae.train.train_shared`): the objective of :class:`MMVAEPlusPlusModule` without private
    latents, on the features that passed; the own pass keeps its stop-gradient, without which nothing ties the
    modalities' shared spaces together. *Second stage*: shared encoders are fixed, and private encoders and effects
    explain what is left. A modality that was not measured is predicted by :math:`f_m` and the cross noise: because
    :math:`h_m` is centred, this is the mean over private latents, whose spread the cross noise holds.

    Parameters
    ----------
    schema
        Registered modalities and covariates.
    network
        Resolved network sizes.
    shape
        Widths of the latent spaces.
    label_weight
        :math:`\beta_y`; ``None`` leaves labels out.
    """

    def __init__(
        self, schema: Schema, network: NetworkConfig, shape: Shape, *, label_weight: float | None = None
    ) -> None:
        super().__init__(schema, network, shape, label_weight=label_weight)

        def decoder(m: str, width: int, n_design: int) -> Decoder:
            return Decoder(width, n_design, schema[m].n_vars, self.likelihoods.of(m).n_heads, network)

        self.decoders = PerModality(self.modalities, lambda m: decoder(m, shape.shared, self.designs.of(m).n_columns))
        with_private = [m for m in self.modalities if shape.private[m]]
        self.private_decoders = PerModality(with_private, lambda m: decoder(m, shape.private[m], 0))
        for m in with_private:
            self.private_decoders.of(m).linear.bias.requires_grad_(False)  # nothing of it is left after centring
        self.baselines = PerModality(
            self.modalities,
            lambda m: Baseline(self.designs.of(m).n_columns, schema[m].n_vars, self.likelihoods.of(m).n_heads),
        )
        for i, m in enumerate(self.modalities):
            generator = torch.Generator().manual_seed(0)  # the same draws, whatever the order of modalities
            self.register_buffer(f"gate_{i}", torch.ones(schema[m].n_vars))
            self.register_buffer(f"passed_{i}", torch.arange(schema[m].n_vars), persistent=False)
            self.register_buffer(f"draws_{i}", torch.randn(N_CENTRE, shape.private[m], generator=generator))
        self.turnable = [m for m in self.modalities if isinstance(self.likelihoods.of(m), Normal)]
        self.turns = PerModality(self.turnable, lambda m: Turned(schema[m].n_vars)).requires_grad_(False)
        self.first_stage = False
        self.input_dropout = 0.0
        self.register_load_state_dict_post_hook(_locate_passed)

    # ------------------------------------------------------------------ screen

    def gate(self, modality: str) -> Tensor:
        """``(p,)`` weight of each feature in the shared encoder; 0 for those that no other assay predicts."""
        return self._stored("gate", modality)

    def set_gates(self, gates: Mapping[str, Tensor]) -> None:
        """Take gates ``(p,)``; one without any open feature is opened for all."""
        for m, gate in gates.items():
            gate = gate if bool((gate > 0).any()) else torch.ones_like(gate)
            size = gate[gate > 0].square().mean().sqrt()
            self.gate(m).copy_(gate / size)
        _locate_passed(self)

    def set_directions(self, directions: Mapping[str, Directions | None]) -> None:
        """Take directions that modalities are read along; ``None`` where they are read by feature."""
        for m in self.turnable:
            self.turns.of(m).set(directions.get(m))

    def turned(self, modality: str) -> Turned | None:
        """Directions that a modality is read along, if it is."""
        found = self.turns.of(modality) if modality in self.turnable else None
        return found if found is not None and found.n else None

    def passed(self, modality: str) -> Tensor | None:
        """Positions of features with an open gate; ``None`` for all."""
        found = self._stored("passed", modality)
        return None if len(found) == len(self.gate(modality)) else found

    def _stored(self, name: str, modality: str) -> Tensor:
        found = self._buffers[f"{name}_{self.modalities.index(modality)}"]
        assert found is not None
        return found

    def encode_shared(self, modality: str, values: Tensor, design: Tensor | None) -> tuple[Tensor, Tensor]:
        turned, columns = self.turned(modality), self.passed(modality)
        if turned is not None:
            inputs, columns = turned.inputs(values), torch.arange(turned.n, device=values.device)
        elif columns is None:
            inputs = values * self.gate(modality)
        else:
            inputs = values[:, columns] * self.gate(modality)[columns]
        if self.training and self.first_stage and self.input_dropout:
            inputs = F.dropout(inputs, self.input_dropout)
        found: tuple[Tensor, Tensor] = self.shared_encoders.of(modality)(inputs, design, columns)
        return found

    def encode_private(self, modality: str, values: Tensor, design: Tensor | None) -> tuple[Tensor, Tensor]:
        if not self.first_stage:
            return super().encode_private(modality, values, design)
        location = values.new_zeros(len(values), self.shape.private[modality])
        return location, torch.full_like(location, STANDARD)  # the prior, from which nothing diverges

    # ------------------------------------------------------------------ stages

    def begin_first_stage(self) -> None:
        """Train what is shared."""
        self.first_stage = True
        self.shared_encoders.requires_grad_(True)
        self.turns.requires_grad_(True)

    def begin_second_stage(self) -> None:
        """Fix the shared encoders."""
        self.first_stage = False
        self.shared_encoders.requires_grad_(False)
        self.turns.requires_grad_(False)
        self.shared_encoders.eval()

    def train(self, mode: bool = True) -> ScreenedModule:
        super().train(mode)
        if not self.first_stage:
            self.shared_encoders.eval()
        return self

    @property
    def decodes_private_across(self) -> bool:
        return False

    def decode(self, modality: str, z: Tensor, design: Tensor | None, route: Tensor) -> Tensor:
        """As of every model; in the first stage, of the features that passed alone where they are separate."""
        d = self.shape.shared
        eta = self._shared_part(modality, z[..., :d], design)
        if self.first_stage or not self.shape.private[modality]:
            return eta
        own = (route == OWN)[..., None, None]
        if not self.training or route.shape != (z.shape[1], 1):
            return eta + self._effect(modality, z[..., d:]) * own
        at = route.argmin(0)  # in training an assay is its own source in one pass: the others need no effect
        effect = self._effect(modality, z.index_select(1, at)[..., d:]) * own.index_select(0, at)
        return eta.index_add(1, at, effect)

    def _effect(self, modality: str, private: Tensor) -> Tensor:
        """What private latents change, ``(..., n_heads, p)``, 0 on average over their prior."""
        found: Tensor = self.private_decoders.of(modality).around(private, self._stored("draws", modality))
        return found

    def _shared_part(self, modality: str, z: Tensor, design: Tensor | None) -> Tensor:
        """What shared latents explain, beside covariates alone where that is nothing."""
        turned, passed = self.turned(modality), self.passed(modality)
        columns = passed if turned is None else torch.arange(turned.n, device=z.device)
        found: Tensor = self.decoders.of(modality)(z, design, columns)
        if columns is None or self._narrow(modality):
            return found
        alone = self.baselines.of(modality)(design).expand(*z.shape[:-1], -1, -1)
        return alone.index_copy(-1, columns, found) if turned is None else alone + turned.features(found)

    def _narrow(self, modality: str) -> bool:
        """Whether the first stage looks at features that passed, and at nothing else."""
        some = self.passed(modality) is not None and self.turned(modality) is None
        return self.first_stage and some and self.likelihoods.of(modality).separate

    def log_prob(self, modality: str, eta: Tensor, observed: Observed, route: Tensor) -> Tensor:
        if not self.first_stage:
            return super().log_prob(modality, eta, observed, route)
        turned = self.turned(modality)
        if turned is not None:
            likelihood = self.likelihoods.of(modality)
            residual = likelihood.encode_transform(observed) - eta[..., 0, :]
            return turned.log_prob(residual * likelihood.measured(observed), route)
        likelihood, passed = self.likelihoods.of(modality), self.passed(modality)
        if passed is not None and self._narrow(modality):
            some = likelihood.of_features(passed)
            return some.log_prob(eta, observed.of_features(passed), route)
        return (likelihood.log_prob_features(eta, observed, route) * (self.gate(modality) > 0)).sum(-1)

    def cross_modal_loss(self, batch: Batch) -> tuple[Tensor, int]:
        """Negative log-likelihood of each assay given each other one, at posterior means: sum and number of terms."""
        least = {m: Evidence(e.location, torch.full_like(e.scale, 1e-6)) for m, e in self.encode(batch).items()}
        passes = self.passes(least, batch, 1.0)
        total, n = torch.zeros((), device=batch.present.device), 0
        for one, values in zip(passes, self.log_likelihoods(passes, batch), strict=True):
            for m, value in values.items():
                if one.route[m] == "cross":
                    total = total - (one.weights[m] * value.mean(0)).sum()
                    n += int(one.weights[m].sum())
        return total, n


def _locate_passed(module: ScreenedModule, *_: object) -> None:
    """Find open gates when they change: found in every step, they would have the host wait for the device."""
    for i, m in enumerate(module.modalities):
        setattr(module, f"passed_{i}", (module.gate(m) > 0).nonzero()[:, 0])
