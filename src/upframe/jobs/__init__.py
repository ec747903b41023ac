"""Plan and carry out upscaling jobs. Every door (command line, Python, server, cluster) calls this package."""
