"""Measure what a network costs, and compare engines side by side."""
