"""Hair: its silhouette, the window that leaves the face free, the flow of its strands, its shine.

Two edges define it. Outside, a dome over the skull that runs on as curtains down to `hair_end`; inside, a window
around the face whose top is the hairline. A strand keeps its relative place between the two, so strands leave the
parting, follow the dome and hang down; waves bend that flow and the silhouette alike.
"""

from __future__ import annotations

import math

from ohlora.kernels.threads import compiled
from ohlora.training.data.portraits.features import blend, times
from ohlora.training.data.portraits.noise import bump, clamp, mix, noise, smooth
from ohlora.training.data.portraits.scene import Color, Scene

CENTER = -0.06  # height of the dome's centre


@compiled()
def half_outer(s: Scene, y: float) -> float:
    """Half width of the curtains at height y below the dome's centre."""
    length = max(s.hair_end - CENTER, 0.02)
    t = clamp((y - CENTER) / length)
    long = smooth(0.3, 1.2, s.hair_end)
    spread = (0.05 + 0.10 * s.curl) * long * smooth(0.0, 0.75, t) - 0.03 * s.hair_short * t
    close = (1.0 - t ** (5.0 + 5.0 * long)) ** 0.6 if t < 1.0 else 0.0
    return (s.hair_side + spread) * close


@compiled()
def place(s: Scene, x: float, y: float) -> tuple[float, float, float]:
    """(signed distance to the silhouette, relative radius q, way t along the strand from the parting)."""
    cx = -0.05 * s.turn_sin
    dx = x - cx
    if y < CENTER:
        height = s.hair_rise + CENTER
        ex, ey = dx / s.hair_side, (y - CENTER) / height
        q = math.sqrt(ex * ex + ey * ey)
        t = abs(math.atan2(dx - s.apex * 0.7 * clamp(-ey), -(y - CENTER) * s.hair_side / height))
        steep = math.sqrt((ex / s.hair_side) ** 2 + (ey / height) ** 2) / max(q, 1e-4)
        d = (1.0 - q) / max(steep, 1e-3)
    else:
        w = half_outer(s, y)
        slope = (half_outer(s, y + 0.01) - w) / 0.01
        q = abs(dx) / max(w, 1e-3)
        t = 0.5 * math.pi + (y - CENTER) / 0.5
        d = (w - abs(dx)) / math.sqrt(1.0 + min(slope * slope, 100.0))
        if y > s.hair_end:
            d = min(d, s.hair_end - y)
    # Curls bulge, straight hair frays; the way is signed, so that both sides meet at the parting.
    way = t if dx > 0.0 else -t
    still = smooth(s.hair_end, s.hair_end - 0.12, y)
    bulge = noise(way * (3.0 + 3.0 * s.curl) + s.pattern, q * 1.5)
    d += (0.006 + 0.050 * s.curl * s.curl) * bulge * (1.0 - 0.8 * s.hair_short) * still
    d += (0.003 + 0.016 * s.curl) * noise(way * 14.0 + s.pattern, q * 4.0) * still
    return d, q, t


@compiled()
def window(s: Scene, x: float, y: float) -> float:
    """Signed distance to the free part around the face, positive inside the window."""
    cx = 0.30 * s.turn_sin
    dx = x - cx
    top = s.hair_line + 0.03
    # Turning away narrows the far side.
    wide = s.width * s.hair_inner * (0.62 * s.turn_cos + 0.38)
    side = 1.0 if dx > 0.0 else -1.0
    wide *= 1.0 - 0.16 * side * s.turn_sin
    strand = noise((x + 0.3 * y) * 34.0 + s.pattern, y * 5.0) * 0.012
    if y < 0.0:
        apex = s.apex * 0.55
        half = wide - apex if dx > apex else wide + apex
        ex, ey = abs(dx - apex) / max(half, 0.05), y / top
        p = 2.1
        r = (ex**p + ey**p) ** (1.0 / p)
        d = (1.0 - r) * min(half, -top) * 0.95 + strand
    else:
        # Straight down beside the cheeks, then in towards the neck.
        inward = (0.22 + 0.10 * (1.06 - s.hair_inner)) * s.width * smooth(0.25, 0.85, y)
        sway = 0.02 * s.curl * noise(y * 7.0 + s.pattern, side * 5.0)
        d = wide - inward + sway - abs(dx) + strand
    if s.fringe > 0.0:
        lean = s.sweep * dx * 0.45
        lower = mix(s.hair_line, -0.125, smooth(0.0, 0.9, s.fringe)) - 0.10 * (dx / max(wide, 0.05)) ** 2 + lean
        locks = noise((dx - 0.35 * s.sweep * y) * 17.0 + s.pattern * 3.0, 2.0) * 0.030
        locks += noise((dx - 0.35 * s.sweep * y) * 46.0 + s.pattern, 9.0) * 0.016
        d = min(d, y - lower + locks)
    return float(d)


@compiled()
def strand(s: Scene, across: float, along: float) -> tuple[float, float, float]:
    """Tones in [-1, 1] of single strands, locks and tufts at a place of the flow."""
    fine = noise(across * 64.0 + s.pattern, along * 1.6)
    locks = noise(across * 21.0 + s.pattern, along * 0.8 + 7.0)
    tufts = noise(across * 8.0 + s.pattern, along * 0.7 + 3.0)
    return fine, locks, tufts


@compiled()
def shade(s: Scene, x: float, y: float, d: float, q: float, t: float, inside: float, behind: bool) -> Color:
    """Colour of hair at a place. d: depth below the silhouette; inside: distance to the window (negative in the hair);
    behind: the part at the back, in the head's shadow.
    """
    cx = -0.05 * s.turn_sin
    side = 1.0 if x > cx else -1.0
    # Strand coordinate: waves bend it, the fringe falls straight down.
    wave = (0.10 * s.curl + 0.012) * math.sin(
        t * (4.0 + 7.0 * s.curl) + 2.5 * noise(q * 3.0 + s.pattern, 0.6 * side) + s.pattern
    )
    wave += 0.05 * s.curl * noise(t * 5.0, q * 8.0 + s.pattern)
    across = q + wave - 0.10 * math.cos(min(t, math.pi)) * (1.0 - s.hair_short * 0.5)
    along = side * t * 1.3
    fine, locks, tufts = strand(s, across, along)
    if y > s.hair_line - 0.14 and y < 0.1 and s.fringe > 0.0 and not behind:
        # Two flows meet here: their tones are mixed, since mixing the coordinates would draw rings.
        falls = smooth(s.hair_line - 0.14, s.hair_line + 0.02, y) * smooth(0.95, 0.6, abs(x) / s.width)
        falls *= smooth(0.0, 0.3, s.fringe)
        drop = strand(s, (x - 0.35 * s.sweep * y) * 1.5 + 0.4 * wave, y)
        fine, locks, tufts = mix(fine, drop[0], falls), mix(locks, drop[1], falls), mix(tufts, drop[2], falls)
    contrast = 0.45 + 0.9 * s.strands
    if s.hair_short > 0.6:  # cropped hair has no long strands
        crop = 0.55 * noise(x * 70.0 + 0.4 * y * 70.0, y * 34.0)
        keep = (1.0 - s.hair_short) / 0.4
        locks, fine, tufts = mix(crop * 0.5, locks, keep), mix(crop, fine, keep), tufts * keep
    tone = 1.0 + contrast * (0.13 * fine + 0.17 * locks + 0.13 * tufts)
    # Roundness: the dome turns away from the viewer towards its edge.
    nx = (x - cx) / max(s.hair_side, 0.1) * 0.95
    ny = clamp(-(y - CENTER) / (s.hair_rise + CENTER)) * -0.9 if y < CENTER else 0.05
    nx += 0.22 * s.curl * math.cos(t * (4.0 + 7.0 * s.curl) + s.pattern) + 0.10 * locks
    nz = math.sqrt(max(1.0 - nx * nx - ny * ny, 0.05))
    toward = nx * s.light_x + ny * s.light_y + nz * s.light_z
    light = smooth(-0.45, 1.0, toward)
    light = mix(1.0, 0.42 + 0.70 * light, 0.45 + 0.55 * s.contrast)
    rim = smooth(0.07, 0.0, d)
    light *= 1.0 - 0.22 * rim
    # Inner edge: the hair beside the face lies in shade, more so below the jaw.
    inner = smooth(0.10, 0.0, -inside) * smooth(-0.15, 0.35, y)
    light *= 1.0 - 0.42 * inner
    light *= 1.0 - 0.18 * smooth(0.2, 1.0, y)
    # Parting: a line where roots show.
    root = 0.0
    if y < CENTER and not behind:
        root = math.exp(-((t / 0.05) ** 2)) * smooth(1.02, 0.85, q) * smooth(0.4, 0.9, 1.0 - s.hair_short + 0.4)
    if behind:
        light *= 0.52
    # Shine: a band across the strands where dome and light meet, broken up by the locks.
    band_at = 0.62 - 0.35 * side * s.light_x
    band = math.exp(-(((t - band_at + 0.10 * locks + 0.05 * fine) / 0.24) ** 2)) * smooth(1.0, 0.75, q)
    low = 0.55 * math.exp(-(((math.sin(t * (2.2 + 5.0 * s.curl) + 2.0 * s.pattern + 2.0 * tufts) - 1.0) / 0.45) ** 2))
    band = max(band, low * smooth(1.2, 2.0, t))
    shine = s.gloss * band * (0.55 + 0.35 * fine + 0.35 * locks) * (0.15 if behind else 1.0) * clamp(0.3 + light)
    k = tone * light
    color = times(s.hair_color, k * s.light_color[0] * 1.12, k * s.light_color[1] * 1.08, k * s.light_color[2] * 1.05)
    bright = 0.10 + 0.5 * max(s.hair_color[0], 0.12)
    red, green, blue = (bright + 0.10) * 0.95, bright * 0.90 + 0.06, bright * 0.75 + 0.05
    color = (color[0] + shine * red, color[1] + shine * green, color[2] + shine * blue)
    if root > 0.0:
        color = blend(color, times(s.skin, 0.62, 0.50, 0.44), 0.55 * root)
    return color


@compiled()
def shadow(s: Scene, x: float, y: float) -> float:
    """Light left on the face where the hair above and beside it takes some away, in (0, 1]."""
    reach = window(s, x - 0.05 * s.light_x, y - 0.055 * (0.5 - s.light_y))
    near = window(s, x, y)
    return 1.0 - 0.42 * smooth(0.05, -0.02, reach) * s.contrast - 0.20 * smooth(0.06, 0.0, near)


@compiled()
def scalp(s: Scene, x: float, y: float) -> float:
    """Faint shade of shaved hair on a bald head."""
    if s.has_hair:
        return 0.0
    return 0.10 * smooth(s.hair_line + 0.05, s.hair_line - 0.08, y) * (1.0 - 0.3 * bump(x, y + 0.5, 0.2, 0.2))
