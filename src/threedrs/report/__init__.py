"""The report: one self-contained page from the results of all runs."""
