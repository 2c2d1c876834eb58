"""kid: how far each of some fifty disjoint blocks of samples is from the reference."""

from targetwise.metric.blocks import kernel_contributions


def contributions(features, reference):
    """Return the contributions of features (n, D) to their distance from a reference."""
    return kernel_contributions(features, reference.features)
