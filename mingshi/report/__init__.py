"""The pages that a run leaves: report and preview, each one file that opens offline."""
