"""What is drawn on the face: eyes, brows, nostrils, mouth, colour of the skin. Face coordinates (u, v).

Each function returns coverages and colours; the painter puts them over each other and keeps the class map.
"""

from __future__ import annotations

import math

from ohlora.kernels.threads import compiled
from ohlora.training.data.portraits.head import nose_shift
from ohlora.training.data.portraits.noise import bump, clamp, cover, mix, noise, smooth
from ohlora.training.data.portraits.scene import Color, Scene


@compiled(inline="always")
def blend(a: Color, b: Color, t: float) -> Color:
    return (a[0] + (b[0] - a[0]) * t, a[1] + (b[1] - a[1]) * t, a[2] + (b[2] - a[2]) * t)


@compiled(inline="always")
def times(a: Color, r: float, g: float, b: float) -> Color:
    return (a[0] * r, a[1] * g, a[2] * b)


@compiled()
def skin_color(s: Scene, u: float, v: float) -> Color:
    """Skin before light: warmer cheeks and nose, cooler jaw, stubble, fine mottling."""
    au = abs(u)
    warm = s.blush * (
        0.9 * bump(au - 0.225, v - 0.16, 0.11, 0.08)
        + 0.5 * bump(u - nose_shift(s, v), v - s.nose_y + 0.02, 0.05, 0.05)
        + 0.15
    )
    color = times(s.skin, 1.0 + 0.02 * warm, 1.0 - 0.16 * warm, 1.0 - 0.14 * warm)
    # A little darker and cooler around the eyes.
    around = bump(au - s.eye_x * 0.98, v - 0.02, 0.105, 0.055) * (0.10 + 0.10 * s.age)
    color = times(color, 1.0 - around, 1.0 - 1.15 * around, 1.0 - 1.0 * around)
    if s.stubble > 0.0:
        beard = smooth(s.mouth_y - 0.105, s.mouth_y - 0.05, v - 0.25 * (au - 0.12) * (au > 0.12))
        inner = bump(u, v - s.mouth_y, s.mouth_width * 0.85, 0.040)
        beard = beard * (1.0 - inner) * (0.8 + 0.2 * noise(u * 90.0, v * 90.0)) * smooth(0.0, 0.25, s.stubble)
        color = blend(color, blend(times(s.skin, 0.55, 0.52, 0.52), s.brow_color, 0.45), 0.62 * s.stubble * beard)
    grain = 1.0 + 0.012 * noise(u * 60.0, v * 60.0) + 0.015 * noise(u * 17.0 + 5.0, v * 17.0)
    return times(color, grain, grain, grain)


@compiled()
def eye_lids(s: Scene, e: float) -> tuple[float, float]:
    """(upper, lower) lid at e in [-1, 1] across the eye, positive upwards, in half eye widths; e = 1 lies outside."""
    span = max(1.0 - e * e, 0.0)
    open_ = s.eye_open
    peak = span**0.72 * (1.0 - 0.10 * e)
    lower = -(0.20 + 0.08 * clamp(open_)) * span**0.9 * (1.0 + 0.12 * e) * (1.0 - 0.25 * clamp(s.smile))
    # A closed eye: the upper lid lies on the lower one.
    upper = lower + open_ * (0.50 * peak - lower * 0.95)
    return upper, lower


@compiled()
def paint_eye(
    s: Scene, u: float, v: float, side: float, pixel: float, light: float, color: Color
) -> tuple[Color, float]:
    """Colour of the skin `color` at (u, v) with one eye over it, and the share of the pixel inside the lids.

    side: -1 for the eye on the left of the picture, 1 for the other. light: brightness of the place.
    """
    ex = side * u - s.eye_x
    ey = -v - s.eye_slant * ex
    e, n = ex / s.eye_width, ey / s.eye_width
    if abs(e) > 1.9 or abs(n) > 1.5:
        return color, 0.0
    size = pixel / s.eye_width
    upper, lower = eye_lids(s, min(max(e, -1.0), 1.0))
    beyond = max(abs(e) - 1.0, 0.0)
    inside = min(upper - n, n - lower) - 1.2 * beyond
    a = cover(inside, size) if abs(e) < 1.0 else 0.0
    if s.eye_open < 0.04:
        a = 0.0
    # crease above the lid, shadow of the socket, bag below
    crease_y = upper + 0.30 + 0.08 * (1.0 - e * e)
    reach = smooth(1.25, 0.75, abs(e))
    crease = 0.34 * math.exp(-(((n - crease_y) / (0.075 + 0.5 * size)) ** 2)) * reach
    crease += 0.16 * math.exp(-(((n - upper - 0.12) / 0.16) ** 2)) * reach * (n > upper)
    crease += (0.10 + 0.20 * s.age) * math.exp(-(((n - lower + 0.30) / 0.08) ** 2)) * smooth(1.1, 0.5, abs(e))
    color = times(color, 1.0 - 0.75 * crease, 1.0 - crease, 1.0 - crease)
    if a > 0.0:
        ball = 0.90 - 0.22 * e * e - 0.40 * smooth(0.30, -0.02, upper - n)
        white = (ball * light * 0.99, ball * light * 0.97, ball * light * 0.96)
        white = blend(white, (0.80 * light, 0.50 * light, 0.46 * light), smooth(-0.72, -1.0, e) * 0.8)
        # iris: dark ring, fibres, darker under the lid
        ix = e - 0.34 * s.gaze_x * side - 0.02
        iy = n - 0.07 + 0.20 * s.gaze_y
        r = math.sqrt(ix * ix + iy * iy)
        radius = 0.43
        if r < radius + size:
            angle = math.atan2(iy, ix)
            fibre = 0.88 + 0.14 * noise(angle * 5.0 + 20.0, r * 6.0)
            glow = 0.80 + 0.55 * smooth(0.25, -0.42, iy) * smooth(0.12, 0.3, r)
            ring = mix(1.0, 0.42, smooth(radius * 0.74, radius, r))
            k = fibre * glow * ring * (0.55 + 0.45 * light) * (1.0 - 0.45 * smooth(0.26, 0.0, upper - n))
            iris = times(s.iris, k, k, k)
            iris = blend(iris, (0.02, 0.018, 0.02), cover(0.185 - r, size * 1.4))
            white = blend(white, iris, cover(radius - r, size * 1.3))
        # catchlight on the side of the light
        cx, cy = ix - 0.17 * (1.0 if s.light_x * side > 0.0 else -1.0), iy - 0.17
        spot = cover(0.095 - math.sqrt(cx * cx + cy * cy), size * 1.2)
        white = blend(white, (0.98, 0.98, 0.98), 0.92 * spot)
        spot = cover(0.05 - math.sqrt((ix + 0.14 * side) ** 2 + (iy + 0.16) ** 2), size * 1.5)
        white = blend(white, (0.95, 0.95, 0.95), 0.35 * spot)
        color = blend(color, white, a)
    # lash line, thicker towards the outer end, with a small wing
    if abs(e) < 1.22:
        thick = (0.045 + 0.085 * s.lashes) * (0.55 + 0.45 * smooth(-1.0, 0.7, e)) * smooth(1.22, 0.9, abs(e))
        at = upper + 0.02 + (0.16 * (e - 0.92) if e > 0.92 else 0.0)
        if e > 1.0:
            at = upper + 0.10 * (e - 1.0)
        lash = cover(thick - abs(n - at), max(size, 0.03))
        color = blend(color, (0.055, 0.04, 0.04), 0.92 * lash * clamp(thick / max(size, 1e-6) + 0.35))
        line = math.exp(-(((n - lower + 0.015) / (0.035 + 0.4 * size)) ** 2)) * smooth(1.05, 0.7, abs(e))
        color = times(color, 1.0 - 0.26 * line, 1.0 - 0.36 * line, 1.0 - 0.34 * line)
    return color, a


@compiled()
def brow(s: Scene, u: float, v: float, side: float, pixel: float) -> float:
    """Coverage of one brow, with hairs."""
    b = (side * u - (s.eye_x - 0.095)) / 0.205
    if b < -0.15 or b > 1.15:
        return 0.0
    middle = s.brow_y - s.brow_angle * (b - 0.4) * 0.2 - s.brow_arch * (1.0 - ((b - 0.62) / 0.62) ** 2) + 0.012
    thick = 0.85 * s.brow_thick * (smooth(-0.12, 0.16, b) * (1.0 - 0.72 * smooth(0.45, 1.08, b)))
    hairs = 0.75 + 0.35 * noise(b * 26.0 + (v - middle) * 260.0 * (0.4 - b) + side * 31.0, v * 18.0)
    soft = max(pixel, 0.012)
    return clamp(cover(thick - abs(v - middle), soft) * hairs) * 0.92 * smooth(-0.14, 0.05, b) * smooth(1.1, 0.9, b)


@compiled()
def nose_marks(s: Scene, u: float, v: float) -> float:
    """Darkness of nostrils and of the shadow under the tip, in [0, 1]."""
    x = u - nose_shift(s, v)
    ax = abs(x)
    dark = 0.75 * bump(ax - 0.033 * s.nose_width, v - s.nose_y - 0.022, 0.020 * s.nose_width, 0.0115)
    dark += 0.30 * bump(x, v - s.nose_y - 0.034, 0.060 * s.nose_width, 0.014)
    dark += 0.22 * bump(ax - 0.078 * s.nose_width, v - s.nose_y - 0.006, 0.011, 0.026)
    return clamp(dark)


@compiled()
def in_nose(s: Scene, u: float, v: float) -> bool:
    """Whether a point belongs to the nose (class 6): a wedge from between the eyes to the wings."""
    t = (v + 0.03) / (s.nose_y + 0.062)
    if t < 0.0 or t > 1.0:
        return False
    half = (0.030 + 0.062 * t**1.6) * s.nose_width
    if t > 0.86:
        half *= math.sqrt(max(1.0 - ((t - 0.86) / 0.14) ** 2, 0.0))
    return bool(abs(u - 0.8 * nose_shift(s, v)) < half)


@compiled()
def mouth_lines(s: Scene, k: float) -> tuple[float, float, float, float]:
    """Heights v of (top of the upper lip, its lower edge, top of the lower lip, its lower edge) at k in [-1, 1]."""
    span = max(1.0 - k * k, 0.0)
    line = s.mouth_y - 0.034 * s.smile * (k * k - 0.35) - 0.004 * math.cos(k * 9.0) * span
    gap = s.mouth_open * 0.105 * span**0.8
    shape = 1.0 - 0.24 * math.exp(-((k / 0.13) ** 2)) + 0.06 * math.exp(-(((abs(k) - 0.26) / 0.2) ** 2))
    bow = 0.040 * s.lips * span**0.75 * shape
    full = 0.050 * s.lips * span**0.62
    return line - 0.36 * gap - bow, line - 0.36 * gap, line + 0.64 * gap, line + 0.64 * gap + full


@compiled()
def paint_mouth(
    s: Scene, u: float, v: float, pixel: float, light: float, spark: float, color: Color
) -> tuple[Color, float, float, float]:
    """Mouth over the skin `color`: (colour, coverage of upper lip, inner mouth, lower lip)."""
    shift = 0.03 * s.turn_sin
    k = (u - shift) / s.mouth_width
    if abs(k) > 1.35 or abs(v - s.mouth_y) > 0.25:
        return color, 0.0, 0.0, 0.0
    top, upper, lower, bottom = mouth_lines(s, min(max(k, -1.0), 1.0))
    end = smooth(1.02, 0.96, abs(k))
    soft = max(pixel * 1.1, 0.006)
    upper_lip = cover(min(v - top, upper - v), soft) * end
    lower_lip = cover(min(v - lower, bottom - v), soft) * end
    inner = cover(min(v - upper, lower - v), pixel) * end if lower - upper > 0.003 else 0.0
    # lips: darker towards the line between them, gloss on the lower one
    if upper_lip > 0.0:
        deep = clamp((v - top) / max(upper - top, 1e-4))
        tone = (0.86 - 0.20 * deep) * (0.35 + 0.65 * light)
        color = blend(color, times(s.lip_color, tone * 1.02, tone * 0.97, tone * 0.97), 0.88 * upper_lip)
    if lower_lip > 0.0:
        low = clamp((v - lower) / max(bottom - lower, 1e-4))
        tone = (0.82 + 0.26 * math.sin(min(low * 3.0, 3.14)) - 0.12 * low) * (0.35 + 0.65 * light)
        lip = times(s.lip_color, tone * 1.02, tone, tone)
        gloss = bump(k - 0.25 * s.light_x, low - 0.42, 0.42, 0.20) * (0.16 + spark) * (0.8 + 0.2 * math.cos(k * 40.0))
        lip = (lip[0] + gloss, lip[1] + gloss * 0.9, lip[2] + gloss * 0.9)
        color = blend(color, lip, 0.88 * lower_lip)
    if inner > 0.0:
        height = lower - upper
        dark = (0.20 * light, 0.05 * light, 0.055 * light)
        depth = (v - upper) / height
        tongue = bump(k, depth - 0.95, 0.55, 0.32) * smooth(0.04, 0.09, height)
        inside = blend(dark, (0.62 * light, 0.26 * light, 0.27 * light), 0.8 * tongue)
        edge = 0.034 * (1.0 - 0.35 * k * k) * smooth(0.0, 0.035, height)
        teeth = cover(edge - (v - upper), pixel) * smooth(0.9, 0.72, abs(k))
        gaps = 1.0 - 0.10 * math.exp(-(((k * 5.0 - math.floor(k * 5.0 + 0.5)) / 0.07) ** 2))
        bright = (0.55 + 0.45 * light) * gaps * (0.98 - 0.32 * abs(k)) * mix(0.72, 1.0, clamp((v - upper) / 0.014))
        inside = blend(inside, (0.94 * bright, 0.92 * bright, 0.87 * bright), teeth)
        color = blend(color, inside, inner)
    # the line between closed lips, the corners, the shadow below the lower lip
    middle = 0.5 * (upper + lower)
    closed = smooth(0.02, 0.0, lower - upper) * end
    line = math.exp(-(((v - middle) / (0.0055 + 0.35 * pixel)) ** 2)) * closed * 0.62
    line += 0.5 * bump(abs(k) - 1.0, (v - mouth_lines(s, 0.99)[1]) / 0.012, 0.10, 1.0)
    line = clamp(line)
    color = times(color, 1.0 - 0.62 * line, 1.0 - 0.78 * line, 1.0 - 0.74 * line)
    below = 0.20 * math.exp(-(((v - bottom - 0.020) / 0.016) ** 2)) * smooth(0.85, 0.2, abs(k)) * (v > bottom)
    return times(color, 1.0 - 0.8 * below, 1.0 - below, 1.0 - below), upper_lip, inner, lower_lip


@compiled()
def glasses(s: Scene, u: float, v: float, pixel: float) -> tuple[float, float]:
    """(coverage of the frame, coverage of the lenses)."""
    rx, ry = 0.138, 0.108
    cx = s.eye_x * 0.98
    p = s.glasses_round
    x, y = (abs(u) - cx) / rx, (v - 0.012) / ry
    r = (abs(x) ** p + abs(y) ** p) ** (1.0 / p)
    d = (r - 1.0) * 0.5 * (rx + ry)
    frame = cover(0.0085 - abs(d), pixel)
    bridge = cover(0.0075 - abs(v + 0.018 + 0.25 * u * u), pixel) * (1.0 if abs(u) < cx - rx else 0.0)
    arm = cover(0.007 - abs(v + 0.02), pixel) * (1.0 if abs(u) > cx + rx else 0.0)
    return max(max(frame, bridge), arm), cover(-d, pixel)
