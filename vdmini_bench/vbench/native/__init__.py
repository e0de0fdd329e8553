"""VBench's dimensions in our own code, reading the official weight files: same scores, one decode, no second environment."""
