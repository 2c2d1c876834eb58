"""What few seeds can say: blocks, simultaneous intervals, verdicts, power, sources of spread; pure functions."""
