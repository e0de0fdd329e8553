"""From a suite to its rows: dry run, jobs, stages, tables."""
