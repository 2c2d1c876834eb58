"""nearest: the mean distance from a sample to the nearest reference image.

How far samples are from where data are, whatever they miss: samples that are all alike may have less than real images, and
copies have 0. So it is read beside another metric and the floor (`bounds: true`), which is what new real images have. From
0, lower is better. On the spiral, where JiT judges samples by eye (Li & He 2025, arXiv:2511.13720, Fig. 2), it is how far
they are off the curve.
"""

import numpy as np

from targetwise.metric.neighbours import kth_neighbours


def measure(features, reference):
    """Return the mean distance of features (n, D) to the nearest of a reference's, in the features' own units."""
    squared, _ = kth_neighbours(features, 1, reference.features)
    return {"nearest": np.sqrt(squared).mean()}


def title(extractor):
    """Return what the number is called in tables."""
    return "nearest distance" if extractor == "inception" else f"nearest distance ({extractor} features)"
