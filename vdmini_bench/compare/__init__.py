"""Two sets of results: differences, what may be compared, and the gate."""
