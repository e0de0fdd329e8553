"""Weights and data that are not part of the package: how to get them, and whether they are intact."""
