"""How fast a model is: timers, scopes, blocks, the machine's roofline."""
