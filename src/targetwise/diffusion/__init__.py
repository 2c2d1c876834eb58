"""The mathematics: parameterizations, noise schedule, loss, random streams, network and sampler."""
