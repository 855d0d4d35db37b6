"""Submodules by modality, and minibatches seen through a function."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, Generic, TypeVar

from torch import nn

from omicvae.data import Batch

T = TypeVar("T")


class PerModality(nn.ModuleList):
    """Submodules indexed by modality name (a ``ModuleDict`` refuses names with dots)."""

    def __init__(self, names: Sequence[str], build: Callable[[str], nn.Module]) -> None:
        super().__init__(build(name) for name in names)
        self.names = tuple(names)

    def of(self, name: str) -> Any:
        """The submodule of a modality."""
        return self[self.names.index(name)]


class Mapped(Generic[T]):
    """Minibatches seen through a function; iterating again starts over, so that nothing has to be kept in memory."""

    def __init__(self, batches: Callable[[], Iterable[Batch]], view: Callable[[Batch], T]) -> None:
        self._batches, self._view = batches, view

    def __iter__(self) -> Iterator[T]:
        return (self._view(batch) for batch in self._batches())
