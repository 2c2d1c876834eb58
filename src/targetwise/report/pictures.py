"""Sample sets as one picture."""

import io

import numpy as np
from PIL import Image


def is_picture(images: np.ndarray) -> bool:
    """Return whether images (N, H, W, C) are grey or coloured; others have no colours to be shown in."""
    return images.shape[-1] in (1, 3)


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


def projection(images: np.ndarray, real: np.ndarray, side: int) -> np.ndarray:
    """Show images that are no pictures as points of the plane in which real images vary most.

    Args:
        images: (N, H, W, C) uint8.
        real: (M, H, W, C) uint8, whose two leading principal directions span the plane.
        side: of the picture, which reaches to half as far again as real images do.

    Returns:
        (side, side, 3) uint8: grey where one point is, darker for more. What is farther out is at the edge.
    """
    points, others = (some.reshape(len(some), -1) / 127.5 for some in (images, real))
    middle = others.mean(axis=0)
    plane = np.linalg.eigh(np.cov(others, rowvar=False))[1][:, -2:]
    plane *= np.where(plane.sum(axis=0) < 0, -1, 1)  # the signs of eigenvectors are anybody's
    reach = 1.5 * np.abs((others - middle) @ plane).max()
    places = ((points - middle) @ plane / reach).clip(-1, 1) * (side - 1) / 2 + (side - 1) / 2
    columns, rows = places.round().astype(int).T
    counts = np.zeros((side, side))
    np.add.at(counts, (side - 1 - rows, columns), 1)
    grey = np.where(counts, 170 - 170 * (1 - 1 / counts.clip(min=1)), 255).round().astype(np.uint8)
    return grey[..., None].repeat(3, axis=2)


def png(picture: np.ndarray) -> bytes:
    """Return a picture (height, width, 3) uint8 as PNG bytes."""
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, format="PNG")
    return buffer.getvalue()
