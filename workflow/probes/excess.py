"""excess: by how much the mean squared x_0 error is above the least possible, E‖x̂_0 − x_0‖² − E‖D − x_0‖² per pixel.

D is the exact denoiser of the training images (mirrored ones with them), so x_t is made of training images too: only
of them is D = E[x_0 | x_t], and the difference is E‖x̂_0 − D‖², which is what is measured, has no noise of x_0 in it
and is never below 0. It has one scale for all outputs, losses and weightings: 0 is a network that has its training's
minimum, whatever the objective.

How to read it: in bins of λ = ln SNR, each named after its middle (``m2`` is −2), ``excess`` is their mean. Where there
is much noise (λ < 0), D is what real images have too, and excess is error. Where there is little, D names the one
training image and has no error, and excess is the network's whole error. Between, D tells training images apart, and
a network that generalizes has excess because it does not: compare networks there, and do not ask for 0.
"""

import torch

from targetwise.diffusion.exact import ExactDenoiser

IMAGES = 1024  # for each bin, with as many λ spread evenly over it
WIDTH = 2

#: The middles; without one, all.
GIVES = {
    "excess_6": 6,
    "excess_4": 4,
    "excess_2": 2,
    "excess_0": 0,
    "excess_m2": -2,
    "excess_m4": -4,
    "excess": None,
}


def measure(model):
    exact, found = ExactDenoiser(model.training), {}
    for number, (name, middle) in enumerate(GIVES.items()):
        if middle is not None:
            draw = model.draw("training", "excess", number, IMAGES)
            t = model.steps_at(middle + WIDTH * ((torch.arange(IMAGES) + 0.5) / IMAGES - 0.5))
            x_t = model.add_noise(draw.x_0, draw.noise, t)
            least = exact.x0(x_t.double(), model.a[t], model.b[t])
            found[name] = (model.x0(x_t, t) - least).square().mean().item()
    return {**found, "excess": sum(found.values()) / len(found)}
