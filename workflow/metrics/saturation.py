"""saturation: the share of pixels beyond ±0.98 in samples, over that in the real images.

Guidance drives pixels to the ends of [-1, 1] (Saharia et al. 2022, arXiv:2205.11487, section 2.3). From 0, and neither
end is good: 1 is expected of new real images, more where samples are saturated.
"""

from targetwise.errors import UserError

BETTER = "neither"
NEEDS = ("images",)

#: A level v means v/127.5 − 1: from 3 to 252 it is within ±0.98.
LOWEST, HIGHEST = 3, 252


def measure(images, real):
    """Return the ratio for images (n, H, W, C) uint8 and real ones (m, H, W, C)."""
    share, wanted = (((each < LOWEST) | (each > HIGHEST)).mean() for each in (images, real))
    if wanted == 0:
        raise UserError("saturation is relative to the real images, but no pixel of theirs is beyond ±0.98")
    return {"saturation": share / wanted}


def title(extractor):
    """Return what the number is called in tables."""
    return "saturation over real"
