"""Online stores: where serving finds the newest row of a feature view by key."""
