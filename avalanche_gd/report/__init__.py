"""A report of many runs: one page, tables and figures for a paper."""
