"""Models as the commands use them: loaded, pruned, sampled, inspected, made with random weights."""
