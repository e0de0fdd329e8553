"""One metric a file: pure functions from features, logits or frames to numbers."""
