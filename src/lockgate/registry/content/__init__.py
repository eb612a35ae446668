"""What is inside a package, looked at without running any of it: third-party code by its lock, formats by their bytes,
and the bill of materials that both amount to."""
