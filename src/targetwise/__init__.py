"""Targetwise: train one diffusion model under many prediction parameterizations and tell which differ."""

__version__ = "0.1.0"
