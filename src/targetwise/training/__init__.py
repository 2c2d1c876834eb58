"""Training one cell: exact, resumable, on one process or many."""
