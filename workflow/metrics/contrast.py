"""contrast: the standard deviation of the values within an image, on average over samples, over that of the real images.

What guidance exaggerates and `guidance_rescale` brings back (Lin et al. 2024, arXiv:2305.08891, section 3.4). From 0, and
neither end is good: 1 is expected of new real images, more where samples are overexposed.
"""

from targetwise.errors import UserError

BETTER = "neither"
NEEDS = ("images",)


def measure(images, real):
    """Return the ratio for images (n, H, W, C) uint8 and real ones (m, H, W, C)."""
    spread, wanted = (each.std(axis=(1, 2, 3)).mean() for each in (images, real))
    if wanted == 0:
        raise UserError("contrast is relative to the real images, but each of theirs is of one value")
    return {"contrast": spread / wanted}


def title(extractor):
    """Return what the number is called in tables."""
    return "contrast over real"
