"""Probes: numbers that a trained network itself gives, without sampling, at each noise level."""
