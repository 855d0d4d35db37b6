"""Section: settings, versions, and a paragraph for a methods section."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import version
from typing import Any

from omicvae.model import CoVAE, MMVAEPlusPlus, ProbabilisticCCA
from omicvae.model._model import Model
from omicvae.model._training_record import PACKAGES
from omicvae.report._citations import MODELS, SOFTWARE
from omicvae.report._data import NOISE
from omicvae.report._parts import Grid, Paragraph, Part, Row, Section, listed, number, percent
from omicvae.tl._trust import measured_trust


def methods_section(model: Model) -> Section:
    """What was done, in words and in versions."""
    return Section(
        "methods", "Methods and versions", "To be pasted into a methods section, and checked.", list(_parts(model))
    )


def _parts(model: Model) -> Iterator[Part]:
    yield Paragraph(methods_text(model), "copy")
    cited = [MODELS[type(model).__name__]] if type(model).__name__ in MODELS else []
    yield Grid(
        ["", "Reference"],
        [[f"[{i}]", text] for i, text in enumerate([*cited, *SOFTWARE], start=1)],
        ("", "Reference"),
        "The paper of the model, scvi-tools, and MuData.",
    )
    yield Row([_settings(model), _versions(model)])


def _versions(model: Model) -> Grid:
    trained = model.training_.versions
    rows = [[name, trained.get(name, "not recorded"), version(name)] for name in PACKAGES]
    return Grid(["Package", "Trained with", "Report made with"], rows, ("Package", "Trained with", "Report made with"))


def _settings(model: Model) -> Grid:
    """Arguments of the model that differ between analyses, and of its training."""
    record = model.training_
    arguments = {k: v for k, v in model.init_params_["non_kwargs"].items() if v is not None}
    parts = {name: getattr(model, f"{name}_indices") for name in ("train", "validation", "calibration", "test")}
    rows = [["Model", type(model).__name__], *([f"Argument {k}", _plain(v)] for k, v in arguments.items())]
    rows += [["Seed", "not recorded" if record.seed is None else str(record.seed)]]
    rows += [[f"Samples: {name}", f"{len(at):,}"] for name, at in parts.items() if at is not None]
    if record.lr is not None:
        rows += [["Minibatch", str(record.batch_size)], ["Peak learning rate", f"{record.lr:g}"]]
        rows += [["Most epochs", str(record.max_epochs)], ["Device", str(record.device)]]
    return Grid(["Setting", "Value"], rows, ("Setting", "Value"))


def _plain(value: Any) -> str:
    if hasattr(value, "to_dict"):
        value = value.to_dict()
    if isinstance(value, dict):
        return ", ".join(f"{k}={v}" for k, v in value.items() if v is not None)
    return str(value)


# ---------------------------------------------------------------------- the paragraph


def methods_text(model: Model) -> str:
    """A paragraph for a methods section: data, model, training, calibration, versions."""
    return " ".join([*_data(model), *_model(model), *_training(model), *_held_out(model), *_software(model)])


def _data(model: Model) -> Iterator[str]:
    present = model._cohort(None).present
    counts = [
        f"{m.name} ({n:,} samples, {m.n_vars:,} features)"
        for m, n in zip(model.schema.modalities, present.sum(0).tolist(), strict=True)
    ]
    yield (
        f"We analysed {len(present):,} samples with {listed(counts)}; {int(present.all(1).sum()):,} samples had all "
        f"{len(counts)} modalities, and none was excluded or padded for lack of one."
    )


def _model(model: Model) -> Iterator[str]:
    noise = listed([f"{NOISE.get(m.likelihood, m.likelihood)} ({m.name})" for m in model.schema.modalities])
    linear = isinstance(model, ProbabilisticCCA)
    what = "probabilistic canonical correlation analysis" if linear else f"{type(model).__name__}, a multimodal VAE"
    yield f"They were modelled jointly with {what} [1]; likelihoods were {noise}."
    if linear:
        yield "Values other than normal ones entered on transformed scales (log counts, logits of proportions)."
    covariates = list(dict.fromkeys([c.column for c in model.schema.categorical] + list(model.schema.continuous)))
    if covariates:
        yield f"Decoders were given the {'covariate' if len(covariates) == 1 else 'covariates'} {listed(covariates)}."


def _training(model: Model) -> Iterator[str]:
    record = model.training_
    sizes = {name: getattr(model, f"{name}_indices") for name in ("train", "validation", "calibration", "test")}
    uses = {"train": "training", "validation": "early stopping", "calibration": "calibration", "test": "testing"}
    if isinstance(model, ProbabilisticCCA):
        uses |= {"train": "fitting", "validation": "choosing the number of factors"}
    split = [f"{len(at):,} for {uses[name]}" for name, at in sizes.items() if at is not None and len(at)]
    if split:
        yield f"Samples were divided into {listed(split)}, keeping the mix of measured modalities."
    if record.lr is not None:
        n = len((model.history or {}).get("train_loss", ()))
        kept = "" if model.best_epoch_ is None or "validation_loss" not in (model.history or {}) else (
            f" and the weights of epoch {model.best_epoch_ + 1}, which had the lowest validation loss, were kept"
        )  # fmt: skip
        yield (
            f"The network was trained with AdamW (minibatches of {record.batch_size}, peak learning rate {record.lr:g}) for "
            f"{n} epochs of at most {record.max_epochs}{kept}."
        )
    if record.seed is not None:
        yield f"The random seed was {record.seed}."
    if isinstance(model, CoVAE | MMVAEPlusPlus) and model.backbone is not None:
        mixed = "" if not model._by_gradient else (
            ", mixed feature by feature with the network's where held-out samples favoured it"
        )  # fmt: skip
        yield f"Missing modalities were predicted from those measured by a closed-form regression{mixed}."
    else:
        yield "Missing modalities were predicted from those measured, through the posterior of the latents."


def _held_out(model: Model) -> Iterator[str]:
    tables = {m: t for m in model.modalities if (t := measured_trust(model, m)) is not None}
    if not tables:
        yield "Too few samples were held out to calibrate intervals or to measure how well modalities are predicted."
        return
    scores = [
        f"{m} {number(float(t['r2'].median()))} ({percent(float(t['skill_vs_ridge'].median()), 1, sign=True)} skill over "
        f"ridge regression; {percent(float(t['coverage90'].mean()))} of values in their 90 % interval)"
        for m, t in tables.items()
    ]
    binary = any(model.schema[m].likelihood == "bernoulli" for m in tables)
    yield (
        f"Prediction intervals{' (but for 0/1 values)' if binary else ''} were calibrated conformally for each set of source "
        "modalities, and predictions scored, on "
        f"samples that the predictor had not been fitted to. The median R² over features was {listed(scores)}; skill is the "
        "share of the continuous ranked probability score that is saved."
    )


def _software(model: Model) -> Iterator[str]:
    found = model.training_.versions
    if not found:
        yield f"We used omicvae {version('omicvae')}; the versions it was trained with were not recorded."
        return
    named = {"omicvae": "omicvae", "scvi-tools": "scvi-tools [2]", "torch": "PyTorch", "mudata": "MuData [3]"}
    if type(model).__name__ not in MODELS:
        named |= {"scvi-tools": "scvi-tools [1]", "mudata": "MuData [2]"}
    software = [f"{label} {found[name]}" for name, label in named.items() if name in found]
    software += [f"Python {found['python']}"] if "python" in found else []
    yield f"We used {listed(software)}."
