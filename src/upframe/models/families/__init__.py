"""One file per family with the facts about its networks, without torch. The networks themselves are in `architectures/`."""
