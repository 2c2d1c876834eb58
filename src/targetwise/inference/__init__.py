"""What values of few seeds say: estimates, simultaneous intervals, verdicts."""
