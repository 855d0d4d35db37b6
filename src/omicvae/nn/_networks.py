"""Encoders and decoders: a perceptron beside a linear path, so that a linear start is exact."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F


@dataclass(frozen=True)
class NetworkConfig:
    """Sizes of the networks, the same for every modality.

    Fields left at ``None`` are chosen from the number of training samples (:meth:`resolve`).
    """

    n_hidden: int | None = None
    """Width of hidden layers."""
    n_layers: int = 2
    """Hidden layers; 0 keeps only the linear path, which makes encoder means and decoders linear."""
    dropout: float | None = None
    """Dropout rate after each hidden layer."""
    encode_covariates: bool = False
    """Whether batch and covariates also enter the encoders; they always enter the decoders."""

    def __post_init__(self) -> None:
        if self.n_hidden is not None and self.n_hidden < 1:
            raise ValueError(f"n_hidden must be at least 1, got {self.n_hidden}")
        if self.n_layers < 0:
            raise ValueError(f"n_layers must be at least 0, got {self.n_layers}")
        if self.dropout is not None and not 0 <= self.dropout < 1:
            raise ValueError(f"dropout must lie in [0, 1), got {self.dropout}")

    def resolve(self, n_obs: int) -> NetworkConfig:
        """Fill in what depends on the number of samples: narrow and regularised below a few thousand."""
        return NetworkConfig(
            n_hidden=self.n_hidden or (128 if n_obs < 20_000 else 256),
            n_layers=self.n_layers,
            dropout=default_dropout(n_obs) if self.dropout is None else self.dropout,
            encode_covariates=self.encode_covariates,
        )

    def to_dict(self) -> dict[str, int | float | bool | None]:
        """Plain dict, for saving."""
        return asdict(self)


def default_dropout(n_obs: int) -> float:
    """Dropout for a number of samples: below a few hundred a perceptron only memorises."""
    return 0.5 if n_obs < 500 else 0.3 if n_obs < 2_000 else 0.1 if n_obs < 4_000 else 0.0


class Perceptron(nn.Sequential):
    """Hidden layers ``Linear -> LayerNorm -> SiLU -> Dropout``.

    LayerNorm and not BatchNorm: a packed batch may hold a single row of a rare modality.
    """

    def __init__(self, n_in: int, config: NetworkConfig) -> None:
        layers: list[nn.Module] = []
        width = n_in
        for _ in range(config.n_layers):
            layers += [nn.Linear(width, config.n_hidden or 128), nn.LayerNorm(config.n_hidden or 128), nn.SiLU()]
            layers += [nn.Dropout(config.dropout)] if config.dropout else []
            width = config.n_hidden or 128
        super().__init__(*layers)
        self.n_out = width

    def forward(self, inputs: Tensor, columns: Tensor | None = None) -> Tensor:
        """``(..., n_out)``; with ``columns``, from these inputs alone, the others being 0."""
        for i, layer in enumerate(self):
            inputs = _of_inputs(layer, columns)(inputs) if i == 0 else layer(inputs)
        return inputs


class Encoder(nn.Module):
    """Location and raw scale of a modality's latent evidence.

    The location is a linear map of the input plus a perceptron whose last layer starts small; the raw scale comes from
    the perceptron alone, around a learned constant.

    Parameters
    ----------
    n_vars
        Input features.
    n_design
        Covariate columns appended to the input.
    n_latent
        Width of the latent block.
    config
        Resolved network sizes.
    scale_start
        Raw scale before training.
    """

    def __init__(self, n_vars: int, n_design: int, n_latent: int, config: NetworkConfig, scale_start: float) -> None:
        super().__init__()
        self.n_vars, self.n_latent = n_vars, n_latent
        self.linear = nn.Linear(n_vars + n_design, n_latent)
        self.hidden = Perceptron(n_vars + n_design, config)
        self.scale_bias = nn.Parameter(torch.full((n_latent,), scale_start))
        self.out = nn.Linear(self.hidden.n_out, 2 * n_latent, bias=False) if config.n_layers else None
        if self.out is not None:
            nn.init.normal_(self.out.weight, std=0.1 / self.hidden.n_out**0.5)

    def forward(self, inputs: Tensor, design: Tensor | None, columns: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """``(n, n_latent)`` location and raw scale, from ``(n, n_vars)`` inputs and ``(n, n_design)`` covariates.

        With ``columns``, ``inputs`` are those of these features alone, the others being 0.
        """
        full = inputs if design is None else torch.cat([inputs, design], -1)
        if columns is not None:
            covariates = torch.arange(self.n_vars, self.linear.in_features, device=columns.device)
            columns = torch.cat([columns, covariates])
        location, raw = _of_inputs(self.linear, columns)(full), self.scale_bias.expand(full.shape[0], -1)
        if self.out is None:
            return location, raw
        more, change = self.out(self.hidden(full, columns)).chunk(2, -1)
        return location + more, raw + change


class Decoder(nn.Module):
    """Link-scale parameters of a modality from its latents and covariates.

    Parameters
    ----------
    n_latent
        Width of the input.
    n_design
        Covariate columns appended to the latents.
    n_vars, n_heads
        Output features and parameters per feature.
    config
        Resolved network sizes.
    """

    def __init__(self, n_latent: int, n_design: int, n_vars: int, n_heads: int, config: NetworkConfig) -> None:
        super().__init__()
        self.n_heads, self.n_vars = n_heads, n_vars
        self.linear = nn.Linear(n_latent + n_design, n_heads * n_vars)
        self.hidden = Perceptron(n_latent + n_design, config)
        self.out = nn.Linear(self.hidden.n_out, n_heads * n_vars, bias=False) if config.n_layers else None
        nn.init.normal_(self.linear.weight, std=0.1 / (n_latent + n_design) ** 0.5)
        nn.init.zeros_(self.linear.bias)
        if self.out is not None:
            nn.init.normal_(self.out.weight, std=0.1 / self.hidden.n_out**0.5)

    def forward(self, z: Tensor, design: Tensor | None, columns: Tensor | None = None) -> Tensor:
        """``(..., n_heads, n_vars)`` from ``(..., n_latent)`` latents and covariates that broadcast to them.

        With ``columns``, of these features alone.
        """
        if design is not None:
            z = torch.cat([z, design.expand(*z.shape[:-1], design.shape[-1])], -1)
        rows, n = None, self.n_vars
        if columns is not None:
            n = len(columns)
            rows = (torch.arange(self.n_heads, device=columns.device)[:, None] * self.n_vars + columns).flatten()
        inputs: Tensor = z
        weight: Tensor = self.linear.weight
        bias: Tensor = self.linear.bias
        if self.out is not None:  # one product: its output may be as large as a minibatch
            inputs, weight = torch.cat([self.hidden(z), z], -1), torch.cat([self.out.weight, weight], 1)
        if rows is not None:
            weight, bias = weight[rows], bias[rows]
        return F.linear(inputs, weight, bias).unflatten(-1, (self.n_heads, n))

    def around(self, z: Tensor, reference: Tensor) -> Tensor:
        """``(..., n_heads, n_vars)``: :meth:`forward` of ``(..., n_latent)`` latents less its mean over ``(k, n_latent)`` others.

        Without covariates. The last layers are linear, so that the mean is taken before them, and their bias cancels.
        """
        rows, k = torch.cat([z.flatten(0, -2), reference]), len(reference)
        eta = F.linear(rows[:-k] - reference.mean(0), self.linear.weight)
        if self.out is not None:
            hidden = self.hidden(rows)
            eta = eta + self.out(hidden[:-k] - hidden[-k:].mean(0))
        return eta.unflatten(0, z.shape[:-1]).unflatten(-1, (self.n_heads, self.n_vars))


def _of_inputs(layer: nn.Module, columns: Tensor | None) -> Callable[[Tensor], Tensor]:
    """A layer, a linear one of some of its inputs."""
    if columns is None or not isinstance(layer, nn.Linear):
        return layer
    return lambda inputs: F.linear(inputs, layer.weight[:, columns], layer.bias)
