"""Losses and the objective of a stage."""
