"""Public data sets made ready for training, in the layouts that recipes and other frameworks read."""
