"""`upframe serve`: the page, the REST service and its durable queue.

The server's process keeps the queue and answers requests. It imports no torch, no numpy and no codec: everything that reads
a file of a user runs in child processes (`crew`, `worker`), so that a hostile picture, a lack of memory or a crash costs one
job and never the page.
"""
