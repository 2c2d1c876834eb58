"""SLURM: what a job is started with, and what the cluster is asked before anything is submitted."""
