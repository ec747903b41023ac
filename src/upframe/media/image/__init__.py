"""Read and write image files: formats, metadata, streaming, verification."""
