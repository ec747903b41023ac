"""Score models on test sets, keep the results, and verify published figures."""
