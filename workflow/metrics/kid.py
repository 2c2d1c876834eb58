"""kid: the unbiased squared maximum mean discrepancy with kernel (x·y / D + 1)³, over 100 subsets of at most 1,000.

Bińkowski et al. 2018, arXiv:1801.01401, section 4.
"""

import numpy as np

from targetwise.metric.distance import KERNEL


def measure(features, reference):
    """Return the distance of features (n, D) to a reference, by the reference's implementation."""
    distance = KERNEL[reference.facts["implementation"]]
    return {"kid": distance(features.astype(np.float64), reference.features.astype(np.float64))}


def title(extractor):
    """Return what the number is called in tables."""
    return "KID" if extractor == "inception" else f"KID ({extractor} features)"
