"""Scores and rows: where they are kept, how they are read, and the statistics of their differences."""
