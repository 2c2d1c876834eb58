"""The budget of a study in words: what every cell was given, and where variants differ in it."""

from collections.abc import Mapping
from typing import Any

from targetwise.recipe import variants
from targetwise.text import counted, listed


def budget(config: Mapping[str, Any]) -> dict[str, str]:
    """Return in words what every cell was given; where variants, scales or samplings differ, each is named.

    Args:
        config: the whole configuration.

    Returns:
        ``steps`` and ``batches`` of the training, and ``sampling``: the sampler, its steps, draws and images, and
        after which steps of the training it sampled, where these are not the last alone.
    """
    axes = config["grid"]
    trainings = {
        (name, scale): variants.training(config, name, scale)
        for name in axes["parameterizations"]
        for scale in axes["scales"]
    }
    samplings = {
        (name, each): options
        for name in axes["parameterizations"]
        for each, options in variants.samplings(config, name).items()
    }
    stops = sorted({options["snapshot"] for options in samplings.values() if "snapshot" in options})
    sampled = f", after {listed([f'{step:,}' for step in stops])} of these steps" if stops else ""
    return {
        "steps": _varied({key: f"{options['steps']:,}" for key, options in trainings.items()}),
        "batches": _varied({key: f"{options['global_batch']:,}" for key, options in trainings.items()}),
        "sampling": _varied(
            {
                key: f"{options['sampler'].upper()} with {options['steps']} steps, "
                f"{counted(options['draws'], 'draw')} of {counted(options['images'], 'image')}"
                for key, options in samplings.items()
            }
        )
        + sampled,
    }


def _varied(values: Mapping[tuple[str, str], str]) -> str:
    """Return a value, or where it differs each value with the names that it belongs to."""
    if len(set(values.values())) == 1:
        return next(iter(values.values()))
    for which in (1, 0):  # where only the one name decides, the other is not worth saying
        by_label = {key[which]: value for key, value in values.items()}
        if all(by_label[key[which]] == value for key, value in values.items()):
            return listed([f"{value} ({label})" for label, value in by_label.items()])
    return listed([f"{value} ({name}, {other})" for (name, other), value in values.items()])
