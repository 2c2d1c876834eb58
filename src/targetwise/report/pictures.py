"""Sample sets as one picture."""

import io

import numpy as np
from PIL import Image


def tile(images: np.ndarray, columns: int, zoom: int = 1, gap: int = 1) -> np.ndarray:
    """Lay images out in rows, each pixel enlarged to ``zoom`` × ``zoom``, ``gap`` white pixels between images.

    Args:
        images: (N, H, W, C) uint8, C = 1 or 3.
        columns: images per row.
        zoom: enlargement, at least 1.
        gap: pixels between images.

    Returns:
        (height, width, 3) uint8.
    """
    enlarged = images.repeat(zoom, axis=1).repeat(zoom, axis=2)
    count, height, width, _ = enlarged.shape
    rows = -(-count // columns)
    canvas = np.full((rows * (height + gap) - gap, columns * (width + gap) - gap, 3), 255, dtype=np.uint8)
    for index, image in enumerate(enlarged):
        top, left = index // columns * (height + gap), index % columns * (width + gap)
        canvas[top : top + height, left : left + width] = image
    return canvas


def png(picture: np.ndarray) -> bytes:
    """Return a picture (height, width, 3) uint8 as PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()
