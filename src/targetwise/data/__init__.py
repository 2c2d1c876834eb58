"""Data sets and other files from outside, accepted by digest only."""
