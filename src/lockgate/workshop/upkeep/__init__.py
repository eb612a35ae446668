"""The upkeep of a store: what nobody needs is collected, what somebody has a right to is erased."""
