"""Prepare public data sets for training, in the layouts that recipes and other frameworks read."""
