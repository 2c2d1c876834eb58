"""frechet: what the distance would lose without each sample."""

from targetwise.metric.influence import frechet_contributions


def contributions(features, reference):
    """Return the contributions of features (n, D) to their distance from a reference."""
    return frechet_contributions(features, reference.mean, reference.covariance)
