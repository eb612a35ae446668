"""The model package, before anybody has given it a version: what it holds, what its bytes are, who signed them, how it
comes to run, and what changed between two. Knows nothing of names, versions and their life."""
