"""channel_means: how far the mean colour of all samples is from that of the real images: √(mean over channels of Δ²).

Δ is the difference of a channel's mean over all pixels of all images, in [-1, 1]: a shift of colour, as Imagen Video
reports of ε (Ho et al. 2022, arXiv:2210.02303). From 0, lower is better; n new real images are some √(σ²·(1/n + 1/m))
from m others, σ the spread of an image's mean in one channel.
"""

import numpy as np

NEEDS = ("images",)


def measure(images, real):
    """Return the distance of images (n, H, W, C) uint8 to real ones (m, H, W, C)."""
    means, wanted = (each.mean(axis=(0, 1, 2)) / 127.5 for each in (images, real))
    return {"channel_means": np.sqrt(np.mean((means - wanted) ** 2))}


def title(extractor):
    """Return what the number is called in tables."""
    return "channel means"
