"""A trained model on samples it has never seen."""

from __future__ import annotations

import os
from typing import Any, NoReturn, Self

from mudata import MuData

from omicvae.data import PatternSplitter
from omicvae.model._persistence import PersistenceMixin


class QueryMixin(PersistenceMixin):
    """``load_query_data``, where scvi-tools has it."""

    _is_query = False

    @classmethod
    def load_query_data(
        cls,
        mdata: MuData,
        reference_model: str | os.PathLike[str] | Self,
        *,
        accelerator: str = "auto",
        device: int | str = "auto",
    ) -> Self:
        """The reference model with query data in place of its own.

        All getters then speak of the query without ``mdata=``, and :mod:`omicvae.tl` can be used as with any model. The
        query may lack assays altogether, as long as one is left, and have its features in another order; a batch that
        the reference does not know counts as the average over its batches.

        Weights, library sizes and calibration are the reference's and stay as they are: nothing is fine-tuned, because
        the latents of new samples follow from those of their assays that were measured. (Where the reference model may
        keep its own data, ``mdata=`` of its getters gives the same numbers.)

        Parameters
        ----------
        mdata
            Query samples; ``setup_mudata`` is not needed.
        reference_model
            Trained model of this class, or the folder it was saved to.
        accelerator, device
            Where to put a model that is read from a folder, as in scvi-tools.

        Returns
        -------
        Trained model. It shares nothing with the reference.

        Raises
        ------
        TypeError
            If ``mdata`` is not a MuData, or the reference is neither a model of this class nor a path.
        ValueError
            If a feature that the reference needs is not in the query, or values do not fit.
        RuntimeError
            If the reference is not trained.
        """
        if not isinstance(mdata, MuData):
            raise TypeError(f"load_query_data takes the query MuData first, got {type(mdata).__name__}")
        if isinstance(reference_model, str | os.PathLike):
            query = cls.load(reference_model, mdata, accelerator=accelerator, device=device)
        elif type(reference_model) is cls:
            query = reference_model._copied(mdata)
        else:
            raise TypeError(
                f"the reference of {cls.__name__}.load_query_data must be a {cls.__name__} or the folder of one, got "
                f"{type(reference_model).__name__}"
            )
        query._require_training()
        query._is_query = True
        return query

    def _copied(self, mdata: MuData) -> Self:
        """The same model with other data."""
        self._require_training()
        arrays = {name: array.copy() for name, array in self._arrays().items()}
        self._register(self.registry_, mdata)
        copied = self._built(self._state(), arrays, mdata)
        copied.to_device(self.device)
        return copied

    def _splitter(self, batch_size: int | str, **kwargs: Any) -> PatternSplitter:
        if self._is_query:
            self._refuse_training()
        return super()._splitter(batch_size, **kwargs)

    def _before_fit(self, splitter: PatternSplitter) -> None:
        if self._is_query:
            self._refuse_training()
        super()._before_fit(splitter)

    def _refuse_training(self) -> NoReturn:
        raise RuntimeError(
            f"the weights of a {type(self).__name__} with query data are those of its reference: train a new model on both "
            "cohorts to learn from the query too"
        )
