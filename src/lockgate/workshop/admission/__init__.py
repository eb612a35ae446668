"""What must hold outside of the journal before anything is decided over it."""
