"""The assembled program: composition roots, command line, hub over HTTP. Holds no decision of its own."""
