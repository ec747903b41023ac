"""Pixels in, pixels out: tiles, flat borders, memory, images and clips."""
