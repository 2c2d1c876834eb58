"""What one asks about a run: where it stands, and what is missing for it."""
