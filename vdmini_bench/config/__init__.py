"""What a user writes: suites, protocols, thresholds; YAML in, checked values out."""
