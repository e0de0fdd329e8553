"""The steps of a distillation: encode, prune, train; what they take, and what they leave."""
