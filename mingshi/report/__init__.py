"""The pages that a run leaves: report and preview, each one file that opens offline."""

from mingshi.report.page import write_report

__all__ = ["write_report"]
