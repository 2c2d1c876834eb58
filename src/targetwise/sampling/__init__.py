"""From a trained cell to images."""
