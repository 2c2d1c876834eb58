"""A job of a run: done once and by one process at a time, whatever is killed."""
