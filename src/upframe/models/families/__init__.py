"""One file per family: what is known about its networks, without torch. The networks themselves are in `architectures/`."""
