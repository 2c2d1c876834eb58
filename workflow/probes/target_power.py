"""target_power: E y² of what the network is to output, exactly, from the training images' E x_0² alone.

For y = p·ε + q·x_0, E y² = p² + q²·E x_0², ε and x_0 being independent: 1 for ε, a² + b²·E x_0² for v. Per element of
y, in each tenth of the time steps; ``target_power`` is the mean, ``target_evenness`` the largest tenth over the smallest.
"""

import torch

GIVES = ("target_power", "target_power_lowest", "target_power_highest", "target_evenness")


def measure(model):
    t = torch.arange(model.T, device=model.a.device)
    one = torch.ones(model.T, *model.training.shape[1:], device=model.a.device)
    zero, size = torch.zeros_like(one), model.training.double().square().mean()
    x_0, noise = model.target(one, zero, t), model.target(zero, one, t)
    if not torch.allclose(model.target(2 * one, -one, t), 2 * x_0 - noise, rtol=1e-3, atol=1e-4):
        raise ValueError("this target is not a sum p·ε + q·x_0")
    power = (noise.double().square() + size * x_0.double().square()).mean((1, 2, 3))
    tenths = torch.stack([each.mean() for each in power.tensor_split(10)]).cpu()
    return {
        "target_power": power.mean(),
        "target_power_lowest": tenths[0],
        "target_power_highest": tenths[-1],
        "target_evenness": tenths.max() / tenths.min(),
    }
