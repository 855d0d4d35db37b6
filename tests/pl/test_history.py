from __future__ import annotations

import numpy as np
import pytest
from matplotlib import pyplot as plt

from omicvae.model import CoVAE
from omicvae.pl import history


def curves(ax: plt.Axes) -> list[np.ndarray]:
    """Heights of the lines that have more than the two points of a marker."""
    return [np.asarray(line.get_ydata()) for line in ax.lines if len(line.get_ydata()) > 2]


def test_by_default_the_elbo_and_beside_it_each_modality(model: CoVAE) -> None:
    ax = history(model)
    left, right = ax.figure.axes
    assert left is ax
    for mode, drawn in zip(("train", "validation"), curves(left), strict=True):
        np.testing.assert_array_equal(drawn, model.history[f"elbo_{mode}"].iloc[:, 0])
    assert len(curves(right)) == 2 * len(model.modalities)
    assert [t.get_text() for t in right.get_legend().get_texts()] == list(model.modalities)
    assert left.get_xlabel() == right.get_xlabel() == "Epoch"
    assert "nats" in left.get_ylabel()
    assert "nats" in right.get_ylabel()


def test_curves_can_be_chosen(model: CoVAE) -> None:
    ax = history(model, keys=["kl_weight", "reconstruction_loss_rna"])
    assert ax.figure.axes == [ax]
    assert len(curves(ax)) == 3
    labels = [t.get_text() for t in ax.get_legend().get_texts()]
    assert labels[:4] == ["kl_weight", "reconstruction_loss_rna", "train", "validation"]


def test_the_epoch_whose_weights_were_kept_is_marked(model: CoVAE) -> None:
    kept = model.best_epoch_
    assert kept is not None
    validation = model.history["validation_loss"].iloc[:, 0]
    assert validation.iloc[kept] == validation.min()
    marks = [line for line in history(model).lines if len(line.get_ydata()) == 2]
    assert [mark.get_xdata()[0] for mark in marks] == [kept]


def test_further_training_is_counted_on(model: CoVAE) -> None:
    again = CoVAE(model.adata)
    for _ in range(2):
        again.train(max_epochs=3, train_size=0.7, accelerator="cpu", enable_progress_bar=False)
    second = again.history["validation_loss"].iloc[3:, 0]
    kept = again.best_epoch_
    assert kept is not None
    assert kept >= 3
    assert again.history["validation_loss"].iloc[kept, 0] == second.min()


def test_without_validation_there_is_one_curve(model: CoVAE) -> None:
    alone = CoVAE(model.adata)
    alone.train(max_epochs=3, train_size=1.0, accelerator="cpu", enable_progress_bar=False)
    ax = history(alone, keys=["elbo"])
    assert len(curves(ax)) == 1


def test_a_loaded_model_has_the_same_curves_and_mark(model: CoVAE, tmp_path) -> None:
    model.save(tmp_path / "model")
    loaded = CoVAE.load(tmp_path / "model", adata=False)
    assert loaded.best_epoch_ == model.best_epoch_ is not None
    assert len(curves(history(loaded))) == 2


def test_wrong_arguments_are_named(model: CoVAE) -> None:
    with pytest.raises(TypeError, match=r"write \['elbo'\]"):
        history(model, keys="elbo")
    with pytest.raises(ValueError, match="'elbow' is not in the training history.*Did you mean 'elbo'"):
        history(model, keys=["elbow"])
    assert plt.get_fignums() == []
    with pytest.raises(TypeError, match="history expects a model"):
        history(model.history)  # type: ignore[arg-type]
    with pytest.raises(RuntimeError, match="has not been trained"):
        history(CoVAE(model.adata))
