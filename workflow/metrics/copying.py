"""copying: how often a sample is nearer to the training images than one of them is to the others: P(d(y) < d(x)) + P(=)/2.

d is the distance to the nearest training image, itself excluded. It is 1 − Δ_T of Meehan et al. 2020, arXiv:2004.05675,
section 2, with the training images themselves, each left out of its own neighbours, in place of held-out ones. From 0
to 1 and neither end is good: ½ is expected of new real images, 1 of copies, 0 of samples that are far from everything.

`authenticity`, beside it, is the share of samples y whose nearest training image has another one nearer than y (Alaa et al.
2022, arXiv:2102.08921; dgm-eval's AuthPct): it falls with every copy, also where other samples are far off. Real images
have about ½ (⅓ in one dimension, 0.53 on the digits); what they have here says the floor (`bounds: true`).
"""

from scipy.stats import mannwhitneyu

from targetwise.errors import UserError
from targetwise.metric.neighbours import kth_neighbours

BETTER = "neither"
NEEDS = ("training images",)


def measure(features, reference):
    """Return both of features (n, D) by a reference's, which must be all training images."""
    if (reference.facts["split"], reference.facts["first"]) != ("train", None):
        raise UserError("copying compares with all training images, but the reference is of others")
    of_samples, nearest = kth_neighbours(features, 1, reference.features)
    of_real, _ = kth_neighbours(reference.features, 1)
    farther = mannwhitneyu(of_real, of_samples).statistic
    return {
        "copying": farther / (len(of_real) * len(of_samples)),
        "authenticity": (of_real[nearest] < of_samples).mean(),
    }


def title(extractor):
    """Return what the number is called in tables."""
    return "copying" if extractor == "inception" else f"copying ({extractor} features)"
