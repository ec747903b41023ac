"""Draw training samples from photos, clips and motion."""
