"""DVC: what is kept of the cells, under digests, and brought back."""
