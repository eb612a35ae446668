"""What `lockgate up` runs on one machine, and how it is found, started in the background and ended."""
