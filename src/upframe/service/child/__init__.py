"""The child processes of the server, which `crew` starts with a name, a device and the data folder.

`main` takes requests; `planning`, `rendering`, `trials` and `views` carry them out. Here torch and codecs are imported, each
when the first request needs it.
"""
