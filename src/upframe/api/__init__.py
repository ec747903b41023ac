"""The public door: the functions of `import upframe`, which check every argument before any work begins."""
