"""VBench's dimensions in our own code on the official weight files: the same scores, and no second environment."""
