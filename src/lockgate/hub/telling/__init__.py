"""Who outside the hub is told of which events."""
