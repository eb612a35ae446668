"""Reading a project's code without running it: syntax, the source tree, the closure of what a step reaches."""
