"""Read and write video files and frame folders: index, codecs, colour, mux, verification."""
