"""Test sets and training folders on disk: read, check and prepare them."""
