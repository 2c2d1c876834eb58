"""gradient: the norm of the loss's gradient by all weights, as the loss is trained, in each tenth of the time steps.

√E‖g‖² over batches of one tenth: what the tenth sends into a step, and what a clip sees. Of the signal-to-noise
‖ḡ‖/√E‖g − ḡ‖², ḡ is the mean over the batches: pure noise would show about 1/√BATCHES.

``lowest`` is the first tenth over the median of the tenths: below ¼ the gradient dies where there is little noise.
``evenness`` is the largest tenth over the smallest.
"""

import torch

IMAGES, BATCHES = 64, 16  # of each tenth
TENTHS = 10

GIVES = ("gradient_lowest", "gradient_highest", "gradient_evenness", "gradient_snr_lowest", "gradient_snr_highest")


def measure(model):
    norms, signals = [], []
    for tenth in range(TENTHS):
        t = model.steps(tenth / TENTHS, (tenth + 1) / TENTHS, IMAGES)
        total, squares = 0, 0
        for batch in range(BATCHES):
            gradient = model.gradient(model.draw("training", "gradient", tenth * BATCHES + batch, IMAGES), t).double()
            total, squares = total + gradient, squares + gradient.square().sum()
        mean = total / BATCHES
        deviations = (squares - BATCHES * mean.square().sum()) / (BATCHES - 1)
        norms.append((squares / BATCHES).sqrt())
        signals.append(mean.norm() / deviations.sqrt())
    norms, signals = torch.stack(norms).cpu(), torch.stack(signals).cpu()
    return {
        "gradient_lowest": norms[0] / norms.quantile(0.5),
        "gradient_highest": norms[-1] / norms.quantile(0.5),
        "gradient_evenness": norms.max() / norms.min(),
        "gradient_snr_lowest": signals[0] / signals.quantile(0.5),
        "gradient_snr_highest": signals[-1] / signals.quantile(0.5),
    }
