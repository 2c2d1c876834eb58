"""energy_distance: 2·E‖x − y‖ − E‖x − x'‖ − E‖y − y'‖ over samples x and reference images y.

Székely & Rizzo 2013, Energy statistics, J. Stat. Plan. Inference 143, eq. 2.2; it is the MMD² with the kernel −‖x − y‖
(Sejdinovic et al. 2013, arXiv:1207.6076). From 0, lower is better, and 0 of infinitely many samples only where the
distributions are equal. It is in the features' own units and over all pairs, none drawn at random. It is the V-statistic,
where a point is paired with itself too: so it is never negative, and n and m images of one distribution are expected to
be E‖x − x'‖·(1/n + 1/m) apart. scipy.stats.energy_distance is its root in one dimension.
"""

from targetwise.metric.neighbours import mean_distance


def measure(features, reference):
    """Return the distance of features (n, D) to a reference's (m, D)."""
    across = mean_distance(features, reference.features)
    within = mean_distance(features, features) + mean_distance(reference.features, reference.features)
    return {"energy_distance": max(0.0, 2 * across - within)}  # rounding may leave less than 0 of equal sets


def title(extractor):
    """Return what the number is called in tables."""
    return "energy distance" if extractor == "inception" else f"energy distance ({extractor} features)"
