"""Runners carry out units of work, in this process or elsewhere."""
