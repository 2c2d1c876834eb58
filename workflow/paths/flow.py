"""a = 1 − τ, b = τ: the straight path of flow matching (Lipman et al. 2023; Liu et al. 2023), τ = (t + ½)/T.

Not variance preserving: a² + b² < 1 in between.
"""

import torch


def coefficients(timesteps, options):
    """Return a and b at every time step, each (T,) fp64."""
    tau = (torch.arange(timesteps, dtype=torch.float64) + 0.5) / timesteps
    return 1 - tau, tau
