"""One page about a model, for those who will not open a notebook."""

from omicvae.model._written_report import ReportMixin
from omicvae.report._write import write_report

__all__ = ["write_report"]

ReportMixin.report_writer = write_report
