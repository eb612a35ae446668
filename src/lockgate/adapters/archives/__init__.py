"""The journal in one file: written, checked without any store, and read into an empty one."""
