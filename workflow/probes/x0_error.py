"""x0_error: √E(x̂_0 − x_0)² by time step, x̂_0 being what the network's output amounts to, unclipped.

On held-out images, whose pixels are in [-1, 1]. An error of ε reaches x̂_0 b/a-fold, which grows without bound towards
T ("ill-conditioned", Salimans & Ho 2022, arXiv:2202.00512, section 4); at low noise ε leaves the least error.
"""

IMAGES = 1024  # for each range, with as many time steps spread evenly over it

#: The ranges, in shares of T.
GIVES = {
    "x0_error_initial": (0, 0.1),
    "x0_error_2": (0.1, 0.2),
    "x0_error_3": (0.2, 0.3),
    "x0_error_4": (0.3, 0.4),
    "x0_error_5": (0.4, 0.5),
    "x0_error_6": (0.5, 0.6),
    "x0_error_7": (0.6, 0.7),
    "x0_error_8": (0.7, 0.8),
    "x0_error_9": (0.8, 0.9),
    "x0_error_10": (0.9, 1),
    "x0_error_early": (0, 0.259),  # t ≤ 258 of 1,000
    "x0_error_terminal": (0.98, 1),
}


def measure(model):
    found = {}
    for number, (name, (first, stop)) in enumerate(GIVES.items()):
        draw, t = model.draw("held-out", "x0_error", number, IMAGES), model.steps(first, stop, IMAGES)
        estimate = model.x0(model.add_noise(draw.x_0, draw.noise, t), t)
        found[name] = (estimate - draw.x_0).double().square().mean().sqrt()
    return found
