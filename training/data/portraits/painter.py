"""One portrait, pixel by pixel: back to front, keeping colour, class and hair coverage in step."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from ohlora.kernels.threads import compiled
from ohlora.training.data.portraits import features, hair, head
from ohlora.training.data.portraits.features import blend, times
from ohlora.training.data.portraits.noise import bump, clamp, cover, mix, noise, smooth
from ohlora.training.data.portraits.scene import Color, Scene

# Class ids of the parsing maps (docs/spec/segmentation.md, section 4).
BACKGROUND, FACE, LEFT_BROW, RIGHT_BROW, LEFT_EYE, RIGHT_EYE = 0, 1, 2, 3, 4, 5
NOSE, UPPER_LIP, INNER_MOUTH, LOWER_LIP, HAIR = 6, 7, 8, 9, 10
PIVOT = 0.50  # height of the neck joint about which the head tilts


@compiled()
def backdrop(s: Scene, x: float, y: float) -> Color:
    """Plain, graded, or a scene too far out of focus to be recognised."""
    t = clamp(0.5 + 0.42 * (x * s.gradient_x + y * s.gradient_y))
    color = blend(s.background, s.background_far, t * min(1.0, abs(s.gradient_x) + abs(s.gradient_y)))
    if s.scene_amount > 0.0:
        horizon = smooth(-0.35, 0.55, y + 0.35 * (s.scene_y - 0.5) + 0.10 * noise(x * 1.6 + 9.0 * s.scene_x, 3.0))
        color = blend(color, times(s.scene_color, 0.42, 0.42, 0.42), 0.55 * s.scene_amount * horizon)
        for i in range(5):
            bx = 1.15 * head_noise(i, s.scene_x)
            by = -0.35 + 0.75 * head_noise(i + 9, s.scene_y)
            radius = 0.12 + 0.08 * math.sin(i * 2.3 + 6.0 * s.scene_x)
            disc = smooth(radius * 1.25, radius * 0.8, math.sqrt((x - bx) ** 2 + (y - by) ** 2))
            color = blend(color, blend(s.scene_color, (1.0, 0.95, 0.85), 0.35 + 0.1 * i), 0.34 * s.scene_amount * disc)
    fade = 1.0 - 0.10 * (x * x + y * y)
    return times(color, fade, fade, fade)


@compiled()
def head_noise(i: int, shift: float) -> float:
    """Smooth path of the i-th shape of the scene as `shift` goes from 0 to 1."""
    return math.sin(2.4 * i + 3.1 * shift + 1.7 * math.sin(1.3 * i))


@compiled()
def body(s: Scene, x: float, y: float, pixel: float, color: Color) -> tuple[Color, float]:
    """Neck, shoulders and clothes over `color`, and their coverage."""
    nx = x - s.head_x - 0.03 * s.turn_sin
    ax = abs(nx)
    half_neck = 0.235 + 0.03 * (s.width - 0.405) / 0.05 + 0.02 * s.stubble + 0.16 * smooth(0.58, 0.98, y) ** 2
    shoulder = 0.80 + 0.30 * smooth(0.15, 1.05, ax) + 0.05 * ax
    neck = cover(half_neck - ax, pixel) * cover(y - 0.15, pixel)
    torso = cover(y - shoulder, pixel)
    coverage = max(neck, torso)
    if coverage <= 0.0:
        return color, 0.0
    # skin of neck and chest: a column, in the chin's shadow at the top
    bend = min(max(nx / (half_neck + 0.02), -0.97), 0.97)
    column = smooth(0.95, 0.70, y)
    side = bend * column * 0.9
    depth = math.sqrt(max(1.0 - side * side, 0.05))
    under = smooth(0.30, 0.0, y - (s.chin * s.scale + s.head_y) * 0.97 - 0.10 * ax)
    occluded = 1.0 - 0.46 * under * (0.55 + 0.45 * s.contrast)
    tendon = 0.04 * bump(ax - 0.05 - 0.10 * smooth(0.9, 0.5, y), 0.0, 0.03, 1.0) * smooth(0.6, 0.8, y)
    skin = head.lit(s, times(s.skin, 0.97, 0.93, 0.92), side, 0.12, depth, occluded - tendon, 0.03)
    collar_bone = 0.10 * math.exp(-(((y - 0.915 - 0.12 * ax) / 0.018) ** 2))
    collar_bone = collar_bone * smooth(0.05, 0.12, ax) * smooth(0.5, 0.3, ax)
    skin = times(skin, 1.0 - 0.8 * collar_bone, 1.0 - collar_bone, 1.0 - collar_bone)
    color = blend(color, skin, coverage)
    # clothes above the neckline's curve stay away
    low = 0.76 + 0.30 * s.neckline
    curve = low - (low - 0.73) * min((ax / (0.26 + 0.10 * s.neckline)) ** 2, 1.0) - 0.1 * max(ax - 0.3, 0.0)
    cloth = min(cover(y - curve, pixel), cover(y - shoulder + 0.012, pixel))
    if cloth > 0.0:
        fold = 0.5 * noise(nx * 3.5 + 1.2 * noise(nx * 2.0, y * 3.0), y * 2.2)
        fold = fold + 0.25 * noise(nx * 9.0 + y * 4.0, y * 3.0)
        slope = 0.55 * nx + 0.25 * fold
        up = -0.45 * smooth(0.25, 0.0, y - shoulder)
        nz = math.sqrt(max(1.0 - slope * slope - up * up, 0.05))
        toward = slope * s.light_x + up * s.light_y + nz * s.light_z
        light = mix(1.0, 0.35 + 0.75 * smooth(-0.4, 1.0, toward), 0.5 + 0.5 * s.contrast) * (1.0 + 0.10 * fold)
        light *= 1.0 - 0.35 * smooth(0.12, 0.0, y - (s.chin * s.scale + s.head_y) - 0.10) * smooth(0.4, 0.2, ax)
        hem = math.exp(-(((y - curve - 0.030) / 0.006) ** 2)) * 0.16
        weave = 1.0 + 0.02 * noise(nx * 120.0, y * 120.0) - hem
        k = light * weave
        color = blend(color, times(s.clothes, k * s.light_color[0], k * s.light_color[1], k * s.light_color[2]), cloth)
    return color, coverage


@compiled()
def ear(s: Scene, hx: float, hy: float, pixel: float, color: Color) -> tuple[Color, float]:
    """Both ears over `color`, and their coverage. They sit behind the face's outline."""
    total = 0.0
    for i in range(2):
        side = 1.0 if i else -1.0
        cx = side * (s.width * 1.015) * s.turn_cos + 0.02 * s.turn_sin
        x, y = side * (hx - cx) - 0.10 * (hy - 0.05), hy - 0.045
        rx, ry = 0.058 + 0.030 * side * -s.turn_sin, 0.118
        r = math.sqrt((x / rx) ** 2 + (y / ry) ** 2)
        a = cover((1.0 - r) * 0.07, pixel)
        if a > 0.0:
            rim = smooth(0.55, 0.85, r)
            nz = 0.75
            lit = head.lit(
                s, times(s.skin, 0.99, 0.86, 0.83), side * 0.6 * rim + 0.1 * side, -0.1, nz, 0.70 + 0.28 * rim, 0.02
            )
            inner = bump(x + 0.006, y + 0.01, 0.018, 0.055) * 0.35
            color = blend(color, times(lit, 1.0 - 0.7 * inner, 1.0 - inner, 1.0 - inner), a)
            total = max(total, a)
    return color, total


@compiled()
def paint_face(s: Scene, hx: float, hy: float, pixel: float) -> tuple[Color, int]:
    """Colour and class of the face at a point inside its silhouette."""
    _, u, v = head.face_point(s, hx, hy)
    nx, ny, nz = head.normal(s, hx, hy)
    left_light = hair.shadow(s, hx, hy) if s.has_hair else 1.0
    skin = features.skin_color(s, u, v)
    bald = hair.scalp(s, hx, hy)
    skin = times(skin, 1.0 - bald, 1.0 - bald, 1.0 - 0.9 * bald)
    dark = features.nose_marks(s, u, v)
    color = head.lit(s, skin, nx, ny, nz, left_light, 0.11)
    color = times(color, 1.0 - 0.62 * dark, 1.0 - 0.80 * dark, 1.0 - 0.80 * dark)
    fold = s.age * 0.16 * math.exp(-((((v + 0.27) % 0.052 - 0.026) / 0.006) ** 2))
    fold = fold * smooth(-0.33, -0.28, v) * smooth(-0.17, -0.20, v)
    color = times(color, 1.0 - fold, 1.0 - fold, 1.0 - fold)
    toward = nx * s.light_x + ny * s.light_y + nz * s.light_z
    light = mix(1.0, 0.45 + 0.6 * smooth(-0.3, 0.95, toward), 0.5 + 0.5 * s.contrast) * left_light
    group = NOSE if features.in_nose(s, u, v) else FACE
    for i in range(2):
        side = 1.0 if i else -1.0
        hairs = features.brow(s, u, v, side, pixel)
        if hairs > 0.0:
            k = 0.55 + 0.45 * light
            color = blend(color, times(s.brow_color, k, k, k), hairs)
            if hairs >= 0.35:
                group = LEFT_BROW + i
        color, inside = features.paint_eye(s, u, v, side, pixel, 0.35 + 0.65 * light, color)
        if inside >= 0.5:
            group = LEFT_EYE + i
    color, upper, inner, lower = features.paint_mouth(s, u, v, pixel, light, 0.25 * s.contrast, color)
    if inner >= 0.5:
        group = INNER_MOUTH
    elif upper >= 0.5:
        group = UPPER_LIP
    elif lower >= 0.5:
        group = LOWER_LIP
    if s.glasses > 0.0:
        frame, lens = features.glasses(s, u - 0.09 * s.turn_sin, v, pixel)
        shadow = features.glasses(s, u - 0.09 * s.turn_sin + 0.012 * s.light_x, v - 0.016, 0.02)[0]
        color = times(color, 1.0 - 0.22 * shadow, 1.0 - 0.26 * shadow, 1.0 - 0.26 * shadow)
        if lens > 0.0:
            glint = smooth(0.035, 0.0, abs(abs(u) - 0.15 + 0.7 * v * (1.0 if u > 0.0 else -1.0))) * 0.10
            color = blend(color, (0.93, 0.96, 1.0), lens * (0.05 + glint))
        k = 0.6 + 0.5 * light
        color = blend(color, times(s.glasses_color, k, k, k), frame)
        if frame >= 0.5:
            group = FACE
    return color, group


@compiled()
def paint(s: Scene, image: NDArray[np.float32], parsing: NDArray[np.uint8], coverage: NDArray[np.float32]) -> None:
    """Fill image float32 [R,R,3] in [0,1], parsing uint8 [R,R], coverage (soft hair) float32 [R,R] in [0,1]."""
    size = image.shape[0]
    pixel = 2.0 / size
    for row in range(size):
        y = (row + 0.5) * pixel - 1.0
        # The head's frame fades into the picture's below the chin: long hair hangs down, however the head tilts.
        hang = smooth(0.25, 0.85, y)
        for column in range(size):
            x = (column + 0.5) * pixel - 1.0
            px, py = x - s.head_x, y - s.head_y
            rx = (px * s.tilt_cos + (py - PIVOT) * s.tilt_sin) / s.scale
            ry = (-px * s.tilt_sin + (py - PIVOT) * s.tilt_cos) / s.scale + PIVOT
            hx, hy = mix(rx, px, hang), mix(ry, py, hang)
            at = pixel / s.scale
            # From the front: what is covered whole is not painted at all.
            distance, q, t, free = -1.0, 0.0, 0.0, 0.0
            behind, front = 0.0, 0.0
            if s.has_hair:
                distance, q, t = hair.place(s, hx, hy)
                if distance > -2.0 * pixel:
                    free = hair.window(s, hx, hy)
                    behind = cover(distance, max(at, 0.006 + 0.010 * s.curl))
                    front = behind * cover(-free, max(at, 0.012))
            color = (0.0, 0.0, 0.0)
            group = BACKGROUND
            soft = 0.0
            if front < 1.0:
                face = cover(head.edge(s, rx, ry), at)
                if face < 1.0:
                    color = backdrop(s, x, y)
                    if behind > 0.0:
                        color = blend(color, hair.shade(s, hx, hy, distance, q, t, free, True), behind)
                        soft = behind
                        group = HAIR if behind >= 0.5 else BACKGROUND
                    color, a = body(s, x, y, pixel, color)
                    if a > 0.0:
                        soft *= 1.0 - a
                        group = BACKGROUND if a >= 0.5 else group
                    color, a = ear(s, rx, ry, at, color)
                    if a > 0.0:
                        soft *= 1.0 - a
                        group = BACKGROUND if a >= 0.5 else group
                if face > 0.0:
                    painted, name = paint_face(s, rx, ry, at)
                    color = blend(color, painted, face)
                    soft *= 1.0 - face
                    group = name if face >= 0.5 else group
            if front > 0.0:
                color = blend(color, hair.shade(s, hx, hy, distance, q, t, free, False), front)
                soft = soft + (1.0 - soft) * front
                group = HAIR if front >= 0.5 else group
            for channel in range(3):
                image[row, column, channel] = clamp(color[channel])
            parsing[row, column] = group
            coverage[row, column] = soft
