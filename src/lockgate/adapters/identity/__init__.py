"""Keys and who they belong to: one module per source of identities."""
