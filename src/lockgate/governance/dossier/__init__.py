"""The dossier of a version as a document: sections with where each comes from, and the rules it is read by."""
