"""image_means: the Wasserstein distance W₁ between how bright images are, samples' and real ones'.

How bright an image is, is the mean of its pixels in [-1, 1]. Diffusion models that never see pure noise bring it towards
the middle (Lin et al. 2024, arXiv:2305.08891, section 3). From 0, lower is better; n and m images of one distribution are
1.1 (uniform) to 1.3 times (normal) σ·√(1/n + 1/m) apart, σ the spread of their brightness.
"""

from scipy.stats import wasserstein_distance

NEEDS = ("images",)


def measure(images, real):
    """Return the distance of images (n, H, W, C) uint8 to real ones (m, H, W, C)."""
    return {"image_means": wasserstein_distance(*(each.mean(axis=(1, 2, 3)) / 127.5 for each in (images, real)))}


def title(extractor):
    """Return what the number is called in tables."""
    return "W₁ of image means"
