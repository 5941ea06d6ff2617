"""The head as a surface: outline, depth, relief of the features, and the light that falls on it.

The head is a stack of ellipses, one per height, turned about the vertical axis; a ray through a pixel meets it in
closed form. Relief (sockets, nose, lips, cheeks) is added to the depth, and normals come from its differences.
"""

from __future__ import annotations

import math

from ohlora.kernels.threads import compiled
from ohlora.training.data.portraits.noise import bump, clamp, mix, smooth
from ohlora.training.data.portraits.scene import DEPTH, Color, Scene

STEP = 0.006  # for differences of the depth; independent of the resolution, so that pictures of all sizes agree


@compiled()
def half_width(s: Scene, y: float) -> float:
    """Half width of the unturned head at height y; 0 above the skull and below the chin."""
    if y < 0.0:
        t = -y / s.top
        return float(s.width * (1.0 + 0.035 * smooth(0.0, 0.5, t)) * max(1.0 - t**2.5, 0.0) ** 0.5)
    t = y / s.chin
    if t >= 1.0:
        return 0.0
    flesh = 1.0 + 0.05 * s.cheeks * smooth(0.0, 0.55, t) * smooth(1.0, 0.6, t)
    return float(s.width * flesh * (1.0 - t**s.jaw) ** 0.56)


@compiled()
def half_depth(s: Scene, y: float) -> float:
    if y < 0.0:
        t = -y / (s.top * 1.02)
        return DEPTH * math.sqrt(max(1.0 - t**2.4, 0.0))
    t = min(y / s.chin, 1.0)
    return DEPTH * (1.0 - 0.10 * t) * math.sqrt(max(1.0 - t**7, 0.0))


@compiled()
def outline(s: Scene, y: float) -> float:
    """Half width of the turned head's silhouette."""
    a, c = half_width(s, y), 0.93 * half_depth(s, y)
    return math.sqrt((a * s.turn_cos) ** 2 + (c * s.turn_sin) ** 2)


@compiled()
def edge(s: Scene, x: float, y: float) -> float:
    """Signed distance to the silhouette, positive inside; exact enough within a few pixels."""
    w = outline(s, y)
    slope = (outline(s, y + STEP) - outline(s, y - STEP)) / (2.0 * STEP)
    if w <= 0.0:
        beyond = y - s.chin if y > 0.0 else -s.top - y
        return -math.sqrt(beyond * beyond + x * x)
    return (w - abs(x)) / math.sqrt(1.0 + min(slope * slope, 400.0))


@compiled()
def surface(s: Scene, x: float, y: float) -> tuple[float, float]:
    """Where the ray through (x, y) meets the smooth head: (depth z, position across the face X)."""
    a, c = max(half_width(s, y), 1e-3), max(half_depth(s, y), 1e-3)
    co, si = s.turn_cos, s.turn_sin
    ia, ic = 1.0 / (a * a), 1.0 / (c * c)
    qa = si * si * ia + co * co * ic
    qb = 2.0 * x * co * si * (ic - ia)
    qd = x * x * (co * co * ia + si * si * ic) - 1.0
    z = (-qb + math.sqrt(max(qb * qb - 4.0 * qa * qd, 0.0))) / (2.0 * qa)
    return z, x * co - z * si


@compiled()
def face_point(s: Scene, x: float, y: float) -> tuple[float, float, float]:
    """(z, X, Y): depth and face coordinates of a pixel; nodding shifts what is in front up or down."""
    z, across = surface(s, x, y)
    return z, across, y - s.nod * (z - 0.25)


@compiled()
def nose_profile(s: Scene, v: float) -> float:
    """Height of the nose ridge at height v."""
    start, tip = -0.06, s.nose_y
    if v < start:
        return 0.0
    t = (v - start) / (tip - start)
    if t < 1.0:
        return float(0.118 * t**1.45)
    return 0.118 * max(1.0 - ((t - 1.0) / 0.16) ** 2, 0.0)


@compiled()
def nose_shift(s: Scene, v: float) -> float:
    """How far the turned nose stands out sideways, in face coordinates."""
    return 0.75 * nose_profile(s, v) * s.turn_sin


@compiled()
def relief(s: Scene, u: float, v: float) -> float:
    """What stands out of the smooth head at face coordinates (u, v)."""
    au = abs(u)
    height = 0.016 * bump(au - s.eye_x, v + 0.115, 0.11, 0.045)  # brow ridge
    height -= 0.034 * bump(au - s.eye_x * 0.93, v + 0.008, 0.105, 0.06)  # sockets
    height += 0.020 * bump(au - s.eye_x, v - 0.004, 0.060, 0.034)  # eyeballs
    lift = 0.035 * max(s.smile, 0.0)
    height += (0.020 + 0.012 * s.cheeks + 0.016 * max(s.smile, 0.0)) * bump(au - 0.225, v - 0.165 + lift, 0.10, 0.085)
    height += 0.018 * bump(u, v - (s.chin - 0.095), 0.085, 0.060)  # chin
    # lips
    k = u / s.mouth_width
    if abs(k) < 1.6:
        line = s.mouth_y - 0.030 * s.smile * k * k
        half_gap = 0.5 * s.mouth_open * 0.085 * max(1.0 - k * k, 0.0)
        fade = math.exp(-(k * k) * 1.3)
        height += 0.016 * fade * bump(0.0, v - (line - 0.022 * s.lips - half_gap * 0.8), 1.0, 0.022)
        height += 0.019 * fade * bump(0.0, v - (line + 0.030 * s.lips + half_gap * 1.2), 1.0, 0.026)
        height -= 0.010 * bump(0.0, v - (line + 0.075 * s.lips + half_gap), 1.0, 0.025) * fade
    height -= 0.006 * bump(u, v - (s.mouth_y - 0.075), 0.014, 0.030)  # groove above the lip
    # folds from the nose to the corners of the mouth
    fold = 0.062 + 0.42 * (v - s.nose_y) + 0.02
    depth = 0.004 + 0.010 * clamp(s.smile) + 0.008 * s.age
    depth = depth * bump(au - fold, 0.0, 0.020, 1.0) * smooth(s.nose_y - 0.03, s.nose_y + 0.03, v)
    height -= depth * smooth(s.mouth_y + 0.05, s.mouth_y - 0.02, v)
    # nose: ridge, tip, wings
    x = u - nose_shift(s, v)
    t = clamp((v + 0.06) / (s.nose_y + 0.06))
    half = (0.026 + 0.030 * t * t) * s.nose_width
    height += nose_profile(s, v) * math.exp(-((x / half) ** 2))
    height += 0.016 * bump(x, v - s.nose_y + 0.01, 0.040 * s.nose_width, 0.034)
    height += 0.030 * bump(abs(x) - 0.055 * s.nose_width, v - s.nose_y - 0.004, 0.026, 0.026)
    return height


@compiled()
def depth(s: Scene, x: float, y: float) -> float:
    z, u, v = face_point(s, x, y)
    return z + relief(s, u, v)


@compiled()
def normal(s: Scene, x: float, y: float) -> tuple[float, float, float]:
    """Unit normal of the face at a pixel: x right, y down, z towards the viewer."""
    z = depth(s, x, y)
    dx = (depth(s, x + STEP, y) - z) / STEP
    dy = (depth(s, x, y + STEP) - z) / STEP
    dx, dy = min(max(dx, -6.0), 6.0), min(max(dy, -6.0), 6.0)
    size = 1.0 / math.sqrt(1.0 + dx * dx + dy * dy)
    return -dx * size, -dy * size, size


@compiled()
def lit(s: Scene, color: Color, nx: float, ny: float, nz: float, shade: float, shine: float) -> Color:
    """Colour of skin-like matter with this normal. shade in [0, 1]: light that other things leave; shine: gloss."""
    toward = nx * s.light_x + ny * s.light_y + nz * s.light_z
    wrapped = clamp((toward + 0.42) / 1.42)
    light = mix(1.0, smooth(0.0, 0.95, wrapped), 0.35 + 0.6 * s.contrast) * shade
    sky = 0.5 - 0.5 * ny
    # Light that went through skin reddens the border of the shadow.
    through = math.exp(-((light - 0.38) ** 2) / 0.045)
    hx, hy, hz = s.light_x, s.light_y, s.light_z + 1.0
    half = (nx * hx + ny * hy + nz * hz) / math.sqrt(hx * hx + hy * hy + hz * hz)
    spark = shine * max(half, 0.0) ** 22 * shade
    rim = 0.10 * (1.0 - clamp(nz)) ** 3
    red = color[0] * (mix(0.50, 1.04, light) + 0.05 * through + 0.05 * sky) * s.light_color[0]
    green = color[1] * (mix(0.37, 1.04, light) + 0.005 * through + 0.05 * sky) * s.light_color[1]
    blue = color[2] * (mix(0.36, 1.04, light) - 0.010 * through + 0.06 * sky) * s.light_color[2]
    return (
        red + spark + rim * s.background[0] * 0.6,
        green + spark * 0.95 + rim * s.background[1] * 0.6,
        blue + spark * 0.9 + rim * s.background[2] * 0.6,
    )
