"""``model.report``: the method is here, what it writes is above the plots."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from importlib import import_module
from pathlib import Path

from omicvae.model._base import MultimodalModel


class ReportMixin(MultimodalModel):
    """A method that draws plots, which are made of models."""

    def report(
        self,
        path: str | os.PathLike[str],
        *,
        title: str | None = None,
        color: Sequence[str] | None = None,
        seed: int = 0,
    ) -> Path:
        """Write one self-contained HTML page about the model: data, training, calibration, skill, methods.

        Nothing is loaded from elsewhere when it is opened: figures are part of the file, and it has no scripts. What a
        model or its data cannot provide is said in a sentence. Scores come from samples the predictor has not seen.

        Parameters
        ----------
        path
            File to write, ``.html``; an existing one is replaced.
        title
            Heading; by default the model and its modalities.
        color
            Columns of ``mdata.obs`` to colour the map of samples by; by default the registered labels and batches, and
            the first two columns with a few classes.
        seed
            Of the map.

        Returns
        -------
        Path of the page.

        Raises
        ------
        ValueError
            If the model was loaded without data, ``path`` does not end in ``.html``, or a column is not there.
        FileNotFoundError
            If there is no folder to write it in.
        RuntimeError
            If the model is not trained.
        """
        # By name and only now: the page is above the plots, and imports run downwards.
        write: Callable[..., Path] = import_module("omicvae.report").write_report
        return write(self, path, title=title, color=color, seed=seed)
