"""Shipped for whoever writes an adapter: contract suites, in-memory adapters, a clock, builders."""
