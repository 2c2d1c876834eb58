"""Short runs that must not move unless a number of cells.PROTOCOL is raised: what decides numbers, seed to samples.

Loss and pixels may differ in their last digits from machine to machine, so they are held to a tolerance.
"""

import copy

import pytest
import torch

from targetwise import cells
from targetwise.data import datasets, store
from targetwise.diffusion import parameterization
from targetwise.files import sha256_of_array
from targetwise.recipe.config import merge, validate
from targetwise.sampling.denoiser import Denoiser, draw_images
from targetwise.training.trainer import Trainer

#: By protocol number of the training and parameterization: losses of the first steps.
LOSSES = {
    (2, "epsilon"): [1.11618, 0.616126, 0.502388, 0.479623],
    (2, "v"): [0.95797, 0.713311, 0.766893, 0.6881],
    (2, "x0"): [0.769229, 0.597509, 0.512758, 0.450787],
}

#: By protocol numbers of training and sampling, and parameterization: mean and spread of eight samples after them.
LEVELS = {
    (2, 2, "epsilon"): (136.93, 83.69),
    (2, 2, "v"): (133.62, 80.95),
    (2, 2, "x0"): (126.74, 45.97),
}

OVERLAY = {
    "grid": {"seeds": [3]},
    "training": {"steps": 4, "global_batch": 16, "log_every": 1, "learning_rate": 1e-3, "ema_decay": 0.99},
    "sampling": {"images": 8, "steps": 5, "batch": 8},
}


@pytest.mark.parametrize("name", ["epsilon", "v", "x0"])
def test_numbers_move_only_with_the_protocol_number(study, name):
    losses, levels = short_run(study, name)
    training, sampling = cells.PROTOCOL["training"], cells.PROTOCOL["sampling"]
    mean, spread = LEVELS[training, sampling, name]
    assert losses == pytest.approx(LOSSES[training, name], rel=1e-4)
    assert (levels.mean(), levels.std()) == (pytest.approx(mean, abs=0.05), pytest.approx(spread, abs=0.05))


def short_run(study, name):
    config = merge(copy.deepcopy(study), {**OVERLAY, "grid": {"seeds": [3], "parameterizations": [name]}})
    config["scales"]["tiny"] = {"channels": [32, 32], "attention": [], "layers_per_block": 1}
    config = validate(config)
    (cell,) = cells.grid(config)
    specification = cells.specifications(config)[cell.folder / "cell.json"]
    arrays = datasets.digits()
    images = store.Images(arrays["train"], arrays["train_labels"], sha256_of_array(arrays["train"]))
    target = parameterization.load(name)
    trainer = Trainer(specification, images, target, target, torch.device("cpu"))
    losses = []
    for step in range(4):
        trainer.advance(trainer.draw(step))
        losses.append(trainer.summarize()["loss"])
    denoiser = Denoiser(specification, images, target, torch.device("cpu"))
    denoiser.model.load_state_dict(trainer.stored_weights())
    return losses, draw_images(denoiser, config["sampling"], 0, "test").astype(float)
