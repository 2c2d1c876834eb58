"""frechet: how far each sample moves the distance, by its influence function."""

from targetwise.metric.influence import frechet_contributions


def contributions(features, reference):
    """Return the contributions of features (n, D) to their distance from a reference."""
    return frechet_contributions(features, reference.mean, reference.covariance)
