"""Classifiers on latents against scikit-learn alone, and what must not leak into them."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import accuracy_score, adjusted_rand_score, normalized_mutual_info_score, roc_auc_score
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from omicvae.metrics import linear_classification


@pytest.fixture
def rng() -> np.random.Generator:
    return np.random.default_rng(0)


def blobs(rng: np.random.Generator, n: int = 120, n_classes: int = 3) -> tuple[np.ndarray, np.ndarray]:
    """Overlapping classes, one twice as frequent, in coordinates of very different units."""
    labels = rng.integers(0, n_classes + 1, n) % n_classes
    x = rng.normal(size=(n, 4)) + 1.2 * np.eye(n_classes, 4)[labels]
    return x * [1, 1e3, 1e-3, 10] + 5, np.array(["x", "y", "z"], dtype=object)[labels]


def reference() -> object:
    return make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000))


def test_cross_validation_is_that_of_scikit_learn(rng):
    x, y = blobs(rng)
    found = linear_classification(x, y, n_folds=4, seed=3)
    folds = StratifiedKFold(4, shuffle=True, random_state=3)
    predicted = cross_val_predict(reference(), x, y, cv=folds)
    assert found.accuracy == pytest.approx(accuracy_score(y, predicted))
    assert found.nmi == pytest.approx(normalized_mutual_info_score(y, predicted))
    assert found.ari == pytest.approx(adjusted_rand_score(y, predicted))
    areas = [
        roc_auc_score(y[b], reference().fit(x[a], y[a]).predict_proba(x[b]), multi_class="ovr")
        for a, b in folds.split(x, y)
    ]
    assert found.auc == pytest.approx(np.mean(areas))
    assert (found.n_samples, found.n_classes) == (120, 3)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_test_samples_take_no_part_in_the_fit(rng, n_classes):
    """Standardised by training samples: a shift of the test samples is not taken out."""
    x, y = blobs(rng, n_classes=n_classes)
    fitted = reference().fit(x[:80], y[:80])
    for shift in (0.0, 2.0):
        test = x[80:] + shift
        found = linear_classification(x[:80], y[:80], test_latents=test, test_labels=y[80:])
        assert found.accuracy == pytest.approx(accuracy_score(y[80:], fitted.predict(test)))
        scores = fitted.predict_proba(test)
        auc = roc_auc_score(y[80:], scores[:, 1] if n_classes == 2 else scores, multi_class="ovr")
        assert found.auc == pytest.approx(auc)
    assert found.majority == pytest.approx((y[80:] == pd.Series(y[:80]).mode()[0]).mean())


def test_classes_without_relation_are_not_found(rng):
    """More dimensions than samples: a fit that saw its test samples would be perfect. 0.5 within 4 standard errors."""
    found = linear_classification(rng.normal(size=(100, 150)), np.arange(100) % 2)
    assert abs(found.accuracy - 0.5) < 4 * 0.05 and abs(found.auc - 0.5) < 4 * 0.06
    assert found.nmi < 0.1 and abs(found.ari) < 0.1 and found.majority == 0.5


def test_separated_classes_are_perfect(rng):
    labels = np.repeat(["x", "y"], 20)
    found = linear_classification(rng.normal(size=(40, 2)) + 20 * (labels == "x")[:, None], labels)
    assert found[:4] == (1.0, pytest.approx(1.0), 1.0, 1.0)


def test_rows_are_matched_by_name(rng):
    x, y = blobs(rng)
    names = [f"s{i}" for i in range(len(x))]
    frame, series = pd.DataFrame(x, index=names), pd.Series(y, index=names)
    shuffled = series.sample(frac=1, random_state=0)
    assert linear_classification(frame, shuffled) == linear_classification(x, y)
    fewer = linear_classification(frame, shuffled.drop(names[:20]))  # the others have no label
    assert fewer == linear_classification(x[20:], y[20:])


def test_what_is_left_out(rng):
    x, y = blobs(rng)
    gaps, unknown = x.copy(), y.copy()
    gaps[:7, 0], unknown[100:] = np.nan, None
    with pytest.warns(UserWarning, match="7 of 100 labelled samples have NaN and are left out"):
        found = linear_classification(gaps, unknown)
    assert found == linear_classification(x[7:100], y[7:100])
    rare = y.copy()
    rare[:3] = "rare"
    with pytest.warns(UserWarning, match="1 classes with fewer than n_folds=5 samples are left out: 'rare'"):
        assert linear_classification(x, rare) == linear_classification(x[3:], y[3:])


def test_mistakes(rng):
    x, y = blobs(rng)
    with pytest.raises(ValueError, match="classes that no training sample has: 'new'"):
        linear_classification(x, y, test_latents=x[:2], test_labels=["x", "new"])
    with pytest.raises(ValueError, match="2 samples have infinite values"):
        linear_classification(np.where(np.arange(120)[:, None] < 2, np.inf, x), y)
    with pytest.raises(ValueError, match="two are needed"):
        linear_classification(x, np.zeros(120))
    with pytest.raises(ValueError, match="at least two classes"):
        linear_classification(x, np.zeros(120), test_latents=x, test_labels=np.zeros(120))
    with pytest.raises(ValueError, match="120 samples have 119 labels"):
        linear_classification(x, y[1:])
    with pytest.raises(ValueError, match="3 dimensions and latents 4"):
        linear_classification(x, y, test_latents=x[:, :3], test_labels=y)
    with pytest.raises(ValueError, match="both test_latents and test_labels"):
        linear_classification(x, y, test_latents=x)
    with pytest.raises(ValueError, match="no test sample has a label"):
        linear_classification(x, y, test_latents=x[:0], test_labels=[])
    with pytest.raises(ValueError, match=r"shape \(n_samples, n_latent\)"):
        linear_classification(x[:, 0], y)
    with pytest.raises(ValueError, match="two are needed"):
        linear_classification(x[:0], [])
    with pytest.raises(ValueError, match="n_folds must be a whole number of at least 2"):
        linear_classification(x, y, n_folds=1)
    with pytest.raises(TypeError, match="values of samples must be an array of numbers, got object"):
        linear_classification(object(), "center")
