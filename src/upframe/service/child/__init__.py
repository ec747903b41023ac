"""The child processes of the server: `python -m upframe.service.child NAME DEVICE DATA`.

`main` takes requests; `planning`, `rendering`, `trials` and `views` carry them out. Here torch and codecs are imported, each
when the first request needs it.
"""
