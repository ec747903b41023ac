"""One file per architecture: paper, network, official key layout and specs."""
