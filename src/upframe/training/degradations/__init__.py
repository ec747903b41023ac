"""Make degraded inputs, replayable from a seed."""
