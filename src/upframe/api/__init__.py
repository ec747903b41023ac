"""The public door: what `import upframe` offers, with every argument checked before any work begins."""
