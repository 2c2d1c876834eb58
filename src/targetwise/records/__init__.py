"""What is kept of a run elsewhere: MLflow, DVC, and where a number was made."""
