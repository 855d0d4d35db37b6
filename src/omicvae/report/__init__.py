"""One page about a model, for those who will not open a notebook."""

from omicvae.report._write import write_report

__all__ = ["write_report"]
