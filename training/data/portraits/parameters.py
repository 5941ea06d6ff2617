"""What a portrait is made of: one table of parameters, each a function of one standard normal value.

`PARAMETERS[i]` is decided by latent value `z[i]`: a uniform share p = Phi(z[i]) is taken through the parameter's
quantile function. So portraits have a latent space, every parameter has the documented distribution, and neighbouring
latents are neighbouring pictures.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy.special import ndtr

from ohlora.errors import InvalidInputError
from ohlora.faces import latents_of_seeds


@dataclass(frozen=True)
class Parameter:
    """One parameter with values in [low, high].

    normal: `mean` and `spread` (standard deviation), clipped to the range.
    even: `low` for a share of 1 - `share` of all people, then rising evenly to `high`.
    switch: `low` for a share of 1 - `share`, `high` for the others.
    """

    name: str
    low: float
    high: float
    kind: Literal["normal", "even", "switch"] = "even"
    mean: float = 0.0
    spread: float = 0.0
    share: float = 1.0
    about: str = ""

    def value(self, z: NDArray[np.float64]) -> NDArray[np.float64]:
        """Standard normal values of any shape -> values of the parameter."""
        if self.kind == "normal":
            return np.clip(self.mean + self.spread * z, self.low, self.high)
        above = ndtr(z) - (1.0 - self.share)
        if self.kind == "switch":
            return np.where(above > 0, self.high, self.low)
        return np.asarray(self.low + (self.high - self.low) * np.clip(above / self.share, 0.0, 1.0))


def _normal(name: str, mean: float, spread: float, low: float, high: float, about: str) -> Parameter:
    return Parameter(name, low, high, "normal", mean, spread, about=about)


def _uniform(name: str, low: float, high: float, about: str) -> Parameter:
    return Parameter(name, low, high, about=about)


def _rare(name: str, share: float, low: float, high: float, about: str) -> Parameter:
    return Parameter(name, low, high, share=share, about=about)


# Lengths are in units of half the picture's side; angles in degrees. New parameters go to the end: a latent's
# position is its meaning.
PARAMETERS: tuple[Parameter, ...] = (
    _uniform("skin_tone", 0.0, 1.0, "fair .. deep"),
    _normal("skin_warmth", 0.0, 0.4, -1.0, 1.0, "rosy .. golden"),
    _normal("face_width", 0.405, 0.016, 0.36, 0.455, "half width at the temples"),
    _normal("jaw", 0.0, 0.4, -1.0, 1.0, "pointed .. square"),
    _normal("chin", 0.60, 0.022, 0.54, 0.67, "from the eye line to the chin"),
    _normal("cheeks", 0.0, 0.4, -1.0, 1.0, "hollow .. full"),
    _normal("turn", 0.0, 11.0, -28.0, 28.0, "degrees; positive looks to the right of the picture"),
    _normal("tilt", 0.0, 4.5, -14.0, 14.0, "degrees; positive lowers the right of the picture"),
    _normal("nod", 0.0, 4.0, -10.0, 10.0, "degrees; positive looks down"),
    _normal("head_x", 0.0, 0.02, -0.06, 0.06, "shift of the head"),
    _normal("head_y", 0.0, 0.02, -0.05, 0.05, "shift of the head"),
    _normal("head_scale", 1.0, 0.035, 0.9, 1.1, "size of the head"),
    _normal("eye_opening", 0.84, 0.24, 0.0, 1.25, "closed .. wide open"),
    _normal("eye_size", 1.0, 0.06, 0.85, 1.15, "relative size"),
    _normal("eye_spacing", 0.178, 0.006, 0.16, 0.195, "half distance of the eyes"),
    _normal("eye_slant", 0.0, 0.05, -0.14, 0.14, "slope of the eye axis, positive raises the outer corner"),
    _normal("gaze_x", 0.0, 0.3, -0.8, 0.8, "left .. right"),
    _normal("gaze_y", 0.0, 0.22, -0.6, 0.6, "up .. down"),
    _uniform("eye_color", 0.0, 1.0, "brown, hazel, green, blue, grey"),
    _normal("brow_height", 0.0, 0.014, -0.04, 0.04, "shift of the brows, positive raises them"),
    _normal("brow_angle", 0.0, 0.09, -0.25, 0.25, "slope, positive raises the outer end"),
    _normal("brow_thickness", 0.021, 0.005, 0.009, 0.036, "at the inner end"),
    _normal("brow_arch", 0.03, 0.012, 0.0, 0.06, "rise of the middle"),
    _normal("nose_length", 0.215, 0.014, 0.17, 0.26, "from the eye line to the tip"),
    _normal("nose_width", 1.0, 0.12, 0.7, 1.35, "relative width"),
    _rare("mouth_opening", 0.5, 0.0, 1.0, "closed .. wide open"),
    _normal("smile", 0.4, 0.4, -0.8, 1.2, "corners down .. up"),
    _normal("mouth_width", 0.145, 0.011, 0.115, 0.175, "half width at rest"),
    _normal("lip_fullness", 1.0, 0.2, 0.5, 1.5, "relative height of the lips"),
    _rare("lipstick", 0.45, 0.0, 1.0, "none .. strong"),
    _uniform("hair_shade", 0.0, 1.0, "black .. blond"),
    _rare("hair_red", 0.3, 0.0, 1.0, "share of red"),
    _rare("hair_grey", 0.12, 0.0, 1.0, "share of grey"),
    _uniform("hair_length", 0.0, 1.0, "bald (below 0.03), cropped, bob, shoulders, beyond the frame"),
    _normal("hair_volume", 0.5, 0.22, 0.0, 1.0, "flat .. full"),
    _uniform("hair_curl", 0.0, 1.0, "straight, wavy, curly"),
    _rare("fringe", 0.5, 0.0, 1.0, "none .. down to the brows"),
    _normal("fringe_sweep", 0.0, 0.35, -1.0, 1.0, "to the left .. to the right"),
    _normal("parting", 0.0, 0.5, -1.0, 1.0, "left .. right of the picture"),
    _normal("hairline", 0.0, 0.03, -0.07, 0.08, "shift of the hairline, positive raises it"),
    _uniform("hair_cover", 0.0, 1.0, "behind the ears .. over the cheeks"),
    _normal("hair_gloss", 0.5, 0.22, 0.0, 1.0, "matt .. shining"),
    _normal("hair_strands", 0.5, 0.2, 0.0, 1.0, "contrast of the strands"),
    _uniform("hair_pattern", 0.0, 1.0, "where waves and strands fall"),
    Parameter("glasses", 0.0, 1.0, "switch", share=0.14, about="0 none, 1 worn"),
    _uniform("glasses_shape", 0.0, 1.0, "round .. angular"),
    _uniform("glasses_shade", 0.0, 1.0, "dark .. light frame"),
    _uniform("clothes_hue", 0.0, 1.0, "colour circle"),
    _uniform("clothes_value", 0.12, 0.92, "dark .. bright"),
    _uniform("clothes_saturation", 0.0, 0.65, "grey .. coloured"),
    _uniform("neckline", 0.0, 1.0, "high .. deep"),
    _normal("light_azimuth", 0.0, 28.0, -65.0, 65.0, "degrees; positive from the right of the picture"),
    _normal("light_elevation", 32.0, 9.0, 8.0, 60.0, "degrees above the eye line"),
    _normal("light_warmth", 0.0, 0.4, -1.0, 1.0, "cold .. warm"),
    _normal("light_contrast", 0.55, 0.16, 0.15, 1.0, "soft .. hard"),
    _uniform("background_hue", 0.0, 1.0, "colour circle"),
    _uniform("background_value", 0.15, 0.95, "dark .. bright"),
    _uniform("background_saturation", 0.02, 0.5, "grey .. coloured"),
    _rare("background_gradient", 0.7, 0.0, 1.0, "plain .. strong gradient"),
    _uniform("background_angle", 0.0, 1.0, "direction of the gradient, in turns"),
    _rare("background_scene", 0.45, 0.0, 1.0, "nothing .. a blurred scene of lights and shapes"),
    _uniform("scene_x", 0.0, 1.0, "where the scene's shapes are"),
    _uniform("scene_y", 0.0, 1.0, "where the scene's shapes are"),
    _uniform("scene_hue", 0.0, 1.0, "colour of the scene's shapes"),
    _normal("blush", 0.35, 0.22, 0.0, 1.0, "colour of cheeks and nose"),
    _rare("stubble", 0.22, 0.0, 1.0, "shade of a beard on jaw and lip"),
    _normal("lashes", 0.55, 0.25, 0.1, 1.1, "weight of the lash line"),
    _rare("age", 0.4, 0.0, 1.0, "lines beside nose and mouth, under the eyes"),
)
LATENTS = len(PARAMETERS)
NAMES = tuple(parameter.name for parameter in PARAMETERS)
LOW = np.array([parameter.low for parameter in PARAMETERS])
HIGH = np.array([parameter.high for parameter in PARAMETERS])


def index(name: str) -> int:
    """Position of the parameter `name`. Raises InvalidInputError listing the names when there is none."""
    try:
        return NAMES.index(name)
    except ValueError:
        raise InvalidInputError(f"no portrait parameter is called '{name}'; there are: {', '.join(NAMES)}") from None


def parameters_from_latents(z: ArrayLike) -> NDArray[np.float32]:
    """Standard normal z [N, >= LATENTS] -> parameters float32 [N, LATENTS]; further columns of z do nothing.

    Raises InvalidInputError for another shape or values that are not finite.
    """
    values = np.asarray(z, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] < LATENTS:
        raise InvalidInputError(f"portrait latents must have shape [N, {LATENTS} or more], got {list(values.shape)}")
    if not np.isfinite(values[:, :LATENTS]).all():
        raise InvalidInputError("portrait latents must be finite numbers")
    columns = [parameter.value(values[:, i]) for i, parameter in enumerate(PARAMETERS)]
    return np.stack(columns, axis=1).astype(np.float32)


def parameters_from_seeds(seeds: ArrayLike) -> NDArray[np.float32]:
    """Parameters float32 [N, LATENTS] of the faces with these seeds: the people that a portrait-trained generator
    shows for the same seeds.
    """
    return parameters_from_latents(latents_of_seeds(np.atleast_1d(seeds))[0])


def check(parameters: ArrayLike) -> NDArray[np.float64]:
    """Parameters [N, LATENTS] as float64. Raises InvalidInputError naming the first value that is out of its range."""
    values = np.asarray(parameters, dtype=np.float64)
    if values.ndim != 2 or values.shape[1] != LATENTS:
        raise InvalidInputError(f"portrait parameters must have shape [N, {LATENTS}], got {list(values.shape)}")
    slack = 1e-5 * (HIGH - LOW)  # float32 rounding of a value at the end of its range
    wrong = ~((values >= LOW - slack) & (values <= HIGH + slack))
    if wrong.any():
        row, column = map(int, np.argwhere(wrong)[0])
        p = PARAMETERS[column]
        raise InvalidInputError(
            f"portrait {row}: {p.name} must be in [{p.low:g}, {p.high:g}] ({p.about}), got {values[row, column]:g}"
        )
    return values
