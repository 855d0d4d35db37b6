"""Which assay to measure next: how much more certain it would make the others."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd
import torch
from mudata import MuData
from torch import Tensor

from omicvae.data import Batch, Cohort
from omicvae.model import CoVAE
from omicvae.model._arguments import check_model
from omicvae.model._model import Model
from omicvae.module import CoVAEModule
from omicvae.module._base import dense
from omicvae.stats.assay_value import balanced_normal, explained, partner_draws, posterior_covariance
from omicvae.tl._held_out_value import held_out_reduction
from omicvae.tl._measurements import Measurements

COLUMNS = ("obs", "candidate", "target", "sd_now", "sd_then", "reduction")
HELD_OUT = ("held_out", "held_out_se", "n_held_out")
DRAWS = 128  # of the latents, decoded for each sample
HELD = 2**22  # numbers of one (draws, samples, features) array held at once
SEED = 0


@torch.inference_mode()
def assay_value(
    model: Model,
    mdata: MuData | None = None,
    *,
    candidates: Sequence[str] | None = None,
    targets: Sequence[str] | None = None,
    held_out: bool = False,
    batch_size: int | None = None,
) -> pd.DataFrame:
    r"""How much more certain the assays a sample lacks would become if one of them were measured.

    Under the model the posterior covariance of latents depends on *which* assays are measured and how precise they are,
    not on their values, so that it is known before the measurement. For each sample, assay it lacks (candidate) and other
    assay it lacks (target), compared is the predictive standard deviation of the target's values

    - now, given what the sample has, and
    - then, given that and the candidate, on average over what the candidate may turn out to show.

    It is that of a *measurement*: noise that no other assay can remove is in both, so the reduction cannot reach 1. Values
    are taken on the scale of the encoders, in units of each feature's standard deviation over training samples (of log
    counts, of logit methylation levels), at the median library size and the mean coverage of the training samples.

    The precision of an assay not yet measured is taken as its mean over the training samples that have it. The model's
    latents are used, without the calibration of intervals. It is what the *latents* say: what is imputed also rests on
    predictors that do not go by them, and held-out errors can fall by several times as much or by a fraction of it. With
    ``held_out=True`` this is measured, where the training data hold samples with the candidate and the target: order
    candidates by ``reduction`` where nothing else is known, and go by ``held_out`` where it is there. Averages over samples
    mean more than single rows: decoded draws leave an error of about 0.01 in a row.

    Parameters
    ----------
    model
        Trained :class:`~omicvae.model.CoVAE` with data attached.
    mdata
        Other data, matched by name; the model's own by default. With only some of its modalities, the table says what the
        others would be worth to a cohort that has none of them.
    candidates, targets
        Modalities that might be measured, and those they are to tell about; all by default.
    held_out
        Whether to measure, too, by how much errors fall in training samples that have the sources, the candidate and the
        target, each predicted without itself. Takes some seconds for every set of sources, candidate and target.
    batch_size
        Samples at a time.

    Returns
    -------
    DataFrame with one row a sample, candidate and target, both absent from that sample and not the same; without rows
    where no sample lacks two assays:

    ``obs``, ``candidate``, ``target``
        Name of the sample, and the two modalities.
    ``sd_now``, ``sd_then``
        Predictive standard deviation of the target, root mean square over its features; 1 for a target of which nothing is
        known, if the model fits.
    ``reduction``
        ``1 - sd_then / sd_now``.
    ``held_out``, ``held_out_se``, ``n_held_out``
        If asked for: one minus the ratio of root mean squared held-out errors with the candidate and without it, its
        standard error over samples, and how many could be compared; the same for all samples that have the same assays, NaN
        where fewer than 50 could be.

    Raises
    ------
    TypeError
        For a model whose posterior given an assay to come has no closed form: all but CoVAE with evidence potentials.
    ValueError
        If the model was loaded without data, or for an unknown modality.
    RuntimeError
        If the model is not trained; with ``held_out``, if samples it was fitted on are not in the attached data.

    Examples
    --------
    >>> import omicvae
    >>> mdata = omicvae.datasets.correlated_gaussian(80, modalities=["rna", "mirna", "rppa"], missing=0.4).mdata
    >>> omicvae.model.CoVAE.setup_mudata(mdata)
    >>> model = omicvae.model.CoVAE(mdata)
    >>> model.train(max_epochs=2, enable_progress_bar=False)
    >>> table = omicvae.tl.assay_value(model)
    >>> table.groupby("candidate")["reduction"].mean().idxmax() in model.modalities
    True
    """
    model, module = _closed_form(check_model(model, "assay_value"))
    chosen = Question(_positions(model, "candidates", candidates), _positions(model, "targets", targets))
    typical = _typical(model, module)
    cohort = model._cohort(mdata)
    positions = np.flatnonzero((~cohort.present).sum(1) >= 2)
    parts, start = [pd.DataFrame(columns=COLUMNS[:5])], 0
    with torch.random.fork_rng([module.device] if module.device.type == "cuda" else []):
        torch.manual_seed(SEED)
        for batch in model._batches(cohort, positions, batch_size):
            parts += [_frame(found, start) for found in _compare(module, batch, typical, chosen)]
            start += batch.n_samples
    table = pd.concat(parts[1:] or parts, ignore_index=True).sort_values(["obs", "candidate", "target"])
    table["obs"] = cohort.obs_names[positions].to_numpy()[table["obs"].astype(np.intp)]
    for column in ("candidate", "target"):
        table[column] = np.asarray(model.modalities, dtype=object)[table[column].astype(np.intp)]
    table = table.astype({"sd_now": np.float32, "sd_then": np.float32}).reset_index(drop=True)
    table["reduction"] = (1 - table["sd_then"] / table["sd_now"]).fillna(0.0)  # 0 / 0: zeros for certain
    return table.join(_measured(model, table, cohort)) if held_out else table


def _measured(model: CoVAE, table: pd.DataFrame, cohort: Cohort) -> pd.DataFrame:
    """Held-out columns of a table."""
    present = cohort.present[cohort.obs_names.get_indexer(table["obs"])]
    position = {name: i for i, name in enumerate(model.modalities)}
    keys = [
        (tuple(np.flatnonzero(has).tolist()), position[c], position[t])
        for has, c, t in zip(present, table["candidate"], table["target"], strict=True)
    ]
    found = {key: held_out_reduction(model, *key) for key in dict.fromkeys(keys)}
    return pd.DataFrame([found[key] for key in keys], index=table.index, columns=HELD_OUT)


class Question(NamedTuple):
    """What is asked for, as positions of modalities."""

    candidates: list[int]
    targets: list[int]


class Typical(NamedTuple):
    """What an assay is expected to be like before it is done: means over training samples."""

    precision: Tensor
    """(D,) of its evidence."""
    coverage: dict[str, Tensor]
    """modality -> (p,) total reads, where it has a coverage."""


class Comparison(NamedTuple):
    """Predictive variances of one target without and with one candidate."""

    candidate: int
    target: int
    rows: Tensor
    """(n,) in the batch."""
    now: Tensor
    """(n,)"""
    then: Tensor
    """(n,)"""


def _closed_form(model: Model) -> tuple[CoVAE, CoVAEModule]:
    if not isinstance(model, CoVAE):
        raise TypeError(
            f"assay_value needs a model whose posterior is a Gaussian known before an assay is done (CoVAE), got "
            f"{type(model).__name__}"
        )
    if not isinstance(model.module, CoVAEModule):
        raise TypeError(
            "assay_value needs CoVAE(posterior='potentials'): with posterior='joint_encoder' a network has to see an assay "
            "before the uncertainty that it leaves is known"
        )
    if model.adata is None:
        raise ValueError(
            "the CoVAE was loaded without data, from whose training samples the precision of each assay is taken: load it "
            "with load(dir, mdata)"
        )
    return model, model.module


def _positions(model: Model, argument: str, names: Sequence[str] | None) -> list[int]:
    if isinstance(names, str):
        raise TypeError(
            f"{argument} must be a list of modalities, got the text {names!r}; write {argument}=[{names!r}]"
        )
    wanted = model.modalities if names is None else [model._check_modality(m) for m in names]
    return sorted({model.modalities.index(m) for m in wanted})


def _typical(model: Model, module: CoVAEModule) -> Typical:
    cohort = model._cohort(None)
    seen = np.arange(len(cohort)) if model.train_indices is None else np.asarray(model.train_indices, np.intp)
    total = torch.zeros(len(module.prior_mean), dtype=torch.float64, device=module.device)
    count = torch.zeros_like(total)
    reads: dict[str, Tensor] = {}
    for batch in model._batches(cohort, seen, None):
        for m, found in module.encode(batch).items():
            total[module.blocks[m]] += found.scale.double().sum(0)
            count[module.blocks[m]] += len(found.scale)
        for m, coverage in batch.coverage.items():
            reads[m] = coverage.nan_to_num().sum(0) + reads.get(m, 0.0)
    mean_reads = {m: r / count[module.blocks[m]][0].clamp_min(1).to(r) for m, r in reads.items()}
    return Typical(total / count.clamp_min(1), {m: r.round().clamp_min(1) for m, r in mean_reads.items()})


def _compare(module: CoVAEModule, batch: Batch, typical: Typical, chosen: Question) -> Iterator[Comparison]:
    """Everything that is asked for about the samples of a minibatch."""
    evidence, mean = _evidence(module, batch, typical)
    now = posterior_covariance(module.prior_covariance, evidence, batch.present)
    then = {}
    for candidate in chosen.candidates:
        more = batch.present.clone()
        more[:, candidate] = True
        then[candidate] = posterior_covariance(module.prior_covariance, evidence, more)
    for target in chosen.targets:
        others = [c for c in chosen.candidates if c != target]
        asked = ~batch.present[:, target] & ~batch.present[:, others].all(1)
        size = max(1, HELD // (DRAWS * module.schema.modalities[target].n_vars))
        for rows in asked.nonzero().squeeze(-1).split(size):
            would_show = Measurements(module, batch, target, mean, rows, typical.coverage)
            yield from _compare_rows(would_show, batch, now, {c: then[c] for c in others})


def _evidence(module: CoVAEModule, batch: Batch, typical: Typical) -> tuple[list[Tensor], Tensor]:
    """``(B, D, D)`` precision of each assay, the typical one where it is absent, and ``(B, D)`` posterior means."""
    encoded = module.encode(batch)
    mean = module.posterior(encoded, batch, batch.present).mean
    matrices = []
    for i, m in enumerate(module.modalities):
        block = module.blocks[m]
        diagonal = torch.zeros(batch.n_samples, len(typical.precision), dtype=torch.float64, device=mean.device)
        own = dense(encoded[m], batch.rows[m], batch.n_samples).scale.double()
        diagonal[:, block] = torch.where(batch.present[:, i : i + 1], own, typical.precision[block])
        matrices.append(torch.diag_embed(diagonal))
    return matrices, mean


def _compare_rows(would_show: Measurements, batch: Batch, now: Tensor, then: dict[int, Tensor]) -> Iterator[Comparison]:
    """One target in some samples, with each candidate (``then``: posterior covariance with it)."""
    block, rows = would_show.block, would_show.rows
    width = block.stop - block.start
    first, second = balanced_normal(max(DRAWS, 4 * width), 2 * width, SEED).to(now.device).split(width, 1)
    covariance = now[rows, block, block]
    everyone = torch.arange(len(rows), device=rows.device)
    deviation = torch.einsum("bij,kj->kbi", torch.linalg.cholesky(covariance), first)
    values = _centered(would_show(deviation, everyone))
    variance = values.square().mean((0, 2))
    for candidate, covariances in then.items():
        lack = (~batch.present[rows, candidate]).nonzero().squeeze(-1)
        if len(lack) == 0:
            continue
        gain = explained(covariance[lack], covariances[rows[lack], block, block])
        partner = _centered(would_show(partner_draws(gain, first, second), lack))
        removed = (values[:, lack] * partner).mean((0, 2)).clamp_min(0)  # never negative but for sampling error
        left = (variance[lack] - removed).clamp_min(0)
        yield Comparison(candidate, would_show.target, rows[lack], variance[lack], left)


def _centered(values: Tensor) -> Tensor:
    return values - values.mean(0)


def _frame(found: Comparison, start: int) -> pd.DataFrame:
    columns = {"obs": found.rows + start, "candidate": found.candidate, "target": found.target}
    sds = {"sd_now": found.now.sqrt().float(), "sd_then": found.then.sqrt().float()}
    return pd.DataFrame({k: v.cpu().numpy() if isinstance(v, Tensor) else v for k, v in {**columns, **sds}.items()})
