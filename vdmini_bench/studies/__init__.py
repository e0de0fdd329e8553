"""Questions beyond a table: which block matters, which loss, and does a metric see a fault."""
