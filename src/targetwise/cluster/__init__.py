"""SLURM: what a job is started with, and what is asked of the cluster before anything is submitted."""
