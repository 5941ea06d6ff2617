"""Parameters -> the numbers that the painter needs: geometry, light and colours of one portrait."""

from __future__ import annotations

import colorsys
import math
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from ohlora.training.data.portraits.parameters import NAMES

Color = tuple[float, float, float]  # linear-looking sRGB in [0, 1]; the painter mixes in this space

SKIN = ((255, 226, 205), (244, 203, 172), (222, 168, 128), (176, 118, 82), (128, 80, 54), (88, 54, 38))
HAIR = ((24, 19, 19), (46, 31, 25), (84, 55, 38), (126, 86, 54), (172, 130, 82), (216, 182, 128))
RED_HAIR = (150, 66, 30)
GREY_HAIR = (176, 174, 172)
EYES = ((70, 42, 26), (98, 62, 34), (126, 98, 48), (92, 116, 70), (70, 116, 140), (86, 134, 170), (128, 142, 150))
BALD = 0.03  # hair_length below this: no hair at all
DEPTH = 0.46  # of the head, from its axis to the front


class Scene(NamedTuple):
    """One portrait, ready to paint. Lengths in half sides of the picture, the origin in its middle, y downwards."""

    # head: where it is and how it is turned
    turn_sin: float
    turn_cos: float
    tilt_sin: float
    tilt_cos: float
    nod: float
    head_x: float
    head_y: float
    scale: float
    # face
    width: float
    top: float
    chin: float
    jaw: float
    cheeks: float
    age: float
    blush: float
    stubble: float
    skin: Color
    # eyes and brows
    eye_open: float
    eye_width: float
    eye_x: float
    eye_slant: float
    gaze_x: float
    gaze_y: float
    iris: Color
    lashes: float
    brow_y: float
    brow_angle: float
    brow_thick: float
    brow_arch: float
    brow_color: Color
    # nose and mouth
    nose_y: float
    nose_width: float
    mouth_y: float
    mouth_open: float
    mouth_width: float
    smile: float
    lips: float
    lip_color: Color
    # hair
    has_hair: bool
    hair_color: Color
    hair_side: float
    hair_rise: float
    hair_end: float
    hair_short: float
    hair_inner: float
    hair_line: float
    apex: float
    curl: float
    fringe: float
    sweep: float
    gloss: float
    strands: float
    pattern: float
    # glasses and clothes
    glasses: float
    glasses_round: float
    glasses_color: Color
    clothes: Color
    neckline: float
    # light and background
    light_x: float
    light_y: float
    light_z: float
    contrast: float
    light_color: Color
    background: Color
    background_far: Color
    gradient_x: float
    gradient_y: float
    scene_amount: float
    scene_x: float
    scene_y: float
    scene_color: Color


def _palette(colors: tuple[tuple[int, int, int], ...], position: float) -> NDArray[np.float64]:
    """Colour at `position` in [0, 1] along a row of colours."""
    table = np.array(colors, dtype=np.float64) / 255.0
    place = position * (len(colors) - 1)
    return np.array([np.interp(place, np.arange(len(colors)), table[:, channel]) for channel in range(3)])


def _color(values: NDArray[np.float64]) -> Color:
    red, green, blue = np.clip(values, 0.0, 1.0)
    return float(red), float(green), float(blue)


def _hsv(hue: float, saturation: float, value: float) -> Color:
    return colorsys.hsv_to_rgb(hue % 1.0, saturation, value)


def _step(low: float, high: float, x: float) -> float:
    t = min(max((x - low) / (high - low), 0.0), 1.0)
    return t * t * (3.0 - 2.0 * t)


def scene_of(parameters: NDArray[np.float64]) -> Scene:
    """One row of parameters [LATENTS] -> Scene."""
    p = dict(zip(NAMES, (float(value) for value in parameters), strict=True))
    turn, tilt = math.radians(p["turn"]), math.radians(p["tilt"])
    azimuth, elevation = math.radians(p["light_azimuth"]), math.radians(p["light_elevation"])
    warm = np.array([1.0, 0.0, -1.0])
    skin = _palette(SKIN, p["skin_tone"]) * (1.0 + 0.05 * p["skin_warmth"] * np.array([0.2, 0.6, -1.0]))
    # Fair hair belongs to fair skin, and so do light eyes.
    fair = 1.0 - 0.8 * _step(0.35, 0.85, p["skin_tone"])
    shade = p["hair_shade"] * fair
    hair = _palette(HAIR, shade)
    hair = hair + p["hair_red"] * 0.75 * fair * (np.array(RED_HAIR) / 255.0 * (0.45 + 0.75 * shade) - hair)
    hair = hair + p["hair_grey"] * 0.85 * (np.array(GREY_HAIR) / 255.0 * (0.7 + 0.4 * shade) - hair)
    natural_lip = skin * np.array([0.86, 0.60, 0.58]) + np.array([0.03, 0.0, 0.0])
    painted_lip = np.array([0.66, 0.10, 0.16])
    length, volume = p["hair_length"], p["hair_volume"]
    width, top = p["face_width"], 0.545
    # Length runs over three stretches: cropped close to the head, down to the jaw, down to beyond the frame.
    short = 1.0 - _step(0.18, 0.5, length)
    end = np.interp(length, [BALD, 0.22, 0.45, 0.7, 1.0], [-0.02, 0.10, 0.46, 0.95, 1.9])
    body = 0.25 + 0.75 * _step(0.03, 0.25, length)
    side = width + body * (0.015 + 0.07 * volume + 0.05 * p["hair_curl"] * volume + 0.025 * (1.0 - short))
    rise = top + body * (0.045 + 0.11 * volume + 0.03 * p["hair_curl"])
    cover = 1.06 - 0.30 * p["hair_cover"]
    background = _hsv(p["background_hue"], p["background_saturation"], p["background_value"])
    far = _hsv(p["background_hue"] + 0.06, p["background_saturation"], p["background_value"] * 0.62)
    angle = 2.0 * math.pi * p["background_angle"]
    brow = 0.45 * hair + 0.30 * skin * np.array([0.45, 0.35, 0.3])
    return Scene(
        turn_sin=math.sin(turn),
        turn_cos=math.cos(turn),
        tilt_sin=math.sin(tilt),
        tilt_cos=math.cos(tilt),
        nod=math.radians(p["nod"]),
        head_x=p["head_x"],
        head_y=p["head_y"] + 0.03,
        scale=1.16 * p["head_scale"],
        width=width,
        top=top,
        chin=p["chin"] + 0.045 * p["mouth_opening"],
        jaw=2.35 + 0.75 * p["jaw"],
        cheeks=p["cheeks"],
        age=p["age"],
        blush=p["blush"],
        stubble=p["stubble"],
        skin=_color(skin),
        eye_open=p["eye_opening"],
        eye_width=0.102 * p["eye_size"],
        eye_x=p["eye_spacing"],
        eye_slant=p["eye_slant"],
        gaze_x=p["gaze_x"],
        gaze_y=p["gaze_y"],
        iris=_color(_palette(EYES, p["eye_color"] * fair)),
        lashes=p["lashes"],
        brow_y=-0.135 - p["brow_height"] - 0.012 * (p["eye_opening"] - 0.75),
        brow_angle=p["brow_angle"],
        brow_thick=p["brow_thickness"],
        brow_arch=p["brow_arch"],
        brow_color=_color(brow),
        nose_y=p["nose_length"],
        nose_width=p["nose_width"],
        mouth_y=p["nose_length"] + 0.135 + 0.3 * (p["chin"] - 0.60),
        mouth_open=p["mouth_opening"],
        mouth_width=p["mouth_width"] * (1.0 + 0.16 * max(p["smile"], 0.0) - 0.10 * p["mouth_opening"]),
        smile=p["smile"],
        lips=p["lip_fullness"],
        lip_color=_color(natural_lip + 0.75 * p["lipstick"] * (painted_lip - natural_lip)),
        has_hair=length >= BALD,
        hair_color=_color(hair),
        hair_side=side,
        hair_rise=rise,
        hair_end=float(end),
        hair_short=short,
        hair_inner=cover,
        hair_line=-0.385 - p["hairline"],
        apex=0.22 * p["parting"],
        curl=p["hair_curl"] * (0.35 + 0.65 * (1.0 - short)),
        fringe=p["fringe"],
        sweep=p["fringe_sweep"],
        gloss=p["hair_gloss"],
        strands=p["hair_strands"],
        pattern=5.0 * p["hair_pattern"],
        glasses=p["glasses"],
        glasses_round=2.0 + 2.5 * p["glasses_shape"],
        glasses_color=_color(np.array([0.08, 0.07, 0.07]) + p["glasses_shade"] ** 2 * np.array([0.55, 0.42, 0.30])),
        clothes=_hsv(p["clothes_hue"], p["clothes_saturation"], p["clothes_value"]),
        neckline=p["neckline"],
        light_x=math.sin(azimuth) * math.cos(elevation),
        light_y=-math.sin(elevation),
        light_z=math.cos(azimuth) * math.cos(elevation),
        contrast=p["light_contrast"],
        light_color=_color(np.array([0.97, 0.96, 0.95]) + 0.035 * p["light_warmth"] * warm),
        background=background,
        background_far=far,
        gradient_x=p["background_gradient"] * math.cos(angle),
        gradient_y=p["background_gradient"] * math.sin(angle),
        scene_amount=p["background_scene"],
        scene_x=p["scene_x"],
        scene_y=p["scene_y"],
        scene_color=_hsv(p["scene_hue"], 0.45, 0.85),
    )


def scene_numbers(parameters: ArrayLike) -> NDArray[np.float32]:
    """Every number of the scenes of parameters [N, LATENTS] -> float32 [N, F], colours as three.

    The painter is nearly linear in these, unlike in the parameters: a hue, for one, is a circle of colours.
    """
    rows = []
    for row in np.asarray(parameters, dtype=np.float64):
        scene = scene_of(row)
        rows.append([part for value in scene for part in (value if isinstance(value, tuple) else (float(value),))])
    return np.array(rows, dtype=np.float32)
