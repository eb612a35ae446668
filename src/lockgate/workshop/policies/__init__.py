"""Policies as code: cases that a policy is tested by, on a machine without any store."""
