"""Procedural portraits: a latent vector becomes a drawn face with exact truth about everything in it."""

from ohlora.training.data.portraits.parameters import (
    LATENTS,
    PARAMETERS,
    Parameter,
    index,
    parameters_from_latents,
    parameters_from_seeds,
)
from ohlora.training.data.portraits.render import Portraits, render
from ohlora.training.data.portraits.scene import scene_numbers

__all__ = [
    "LATENTS",
    "PARAMETERS",
    "Parameter",
    "Portraits",
    "index",
    "parameters_from_latents",
    "parameters_from_seeds",
    "render",
    "scene_numbers",
]
