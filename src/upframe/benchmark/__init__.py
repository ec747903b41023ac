"""Measure the cost of networks, and compare engines with the reference form."""
