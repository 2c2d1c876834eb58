"""The processors a stage runs on, and the processes that share it."""
