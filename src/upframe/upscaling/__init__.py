"""Enlarge pixels: tiles, flat borders, memory, images and clips."""
