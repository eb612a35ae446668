"""Where steps run: `LocalRunner` on this machine, in process or in a worker process of their own."""
