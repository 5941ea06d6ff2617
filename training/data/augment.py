"""Strong augmentation for few pictures: one warp, colour, new hair colours, new backgrounds, worse cameras.

Every step takes its randomness from the generator it is given, so a sample is a function of (seed, epoch, index)
and a resumed run sees what an uninterrupted one would have seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from ohlora.io.images import encode_image

Image = NDArray[np.uint8]
BACKGROUND_CLASS = 0  # of the 19-class parser


@dataclass(frozen=True)
class Augmentation:
    """Strengths. Probabilities in [0, 1]; angles in degrees; shifts as share of the picture.

    companion: another person beside the first, of pictures with class maps.
    """

    rotation: float = 20.0
    zoom: tuple[float, float] = (0.7, 1.5)
    shift: float = 0.12
    perspective: float = 0.06
    elastic: float = 0.4
    flip: float = 0.5
    new_background: float = 0.35
    new_hair_color: float = 0.4
    color: float = 0.9
    gray: float = 0.08
    degrade: float = 0.4
    occlude: float = 0.15
    clutter: float = 0.35
    companion: float = 0.0


def augment(
    image: Image,
    label: Image,
    parsing: Image | None,
    size: int,
    rng: np.random.Generator,
    strength: Augmentation,
    donor: tuple[Image, Image] | None = None,
) -> tuple[Image, Image]:
    """RGB [H,W,3] and hair*255 [H,W] -> the same two at size x size.

    donor: another picture with its hair map, for backgrounds and clutter.
    """
    if parsing is not None and rng.random() < strength.new_background:
        image = replace_background(image, parsing, rng, None if donor is None else donor[0])
    if rng.random() < strength.new_hair_color:
        image = recolor_hair(image, label, rng)
    image, label = warp(image, label, size, rng, strength)
    return spoil(image, label, rng, strength, donor)


def spoil(
    image: Image, label: Image, rng: np.random.Generator, strength: Augmentation, donor: tuple[Image, Image] | None
) -> tuple[Image, Image]:
    """What happens to a picture in its final framing: things in front of it, other colours, a worse camera.

    label [S,S] times 255 loses what gets hidden.
    """
    for _ in range(3):
        if rng.random() < strength.clutter:
            image, label = clutter(image, label, rng, donor)
    if rng.random() < strength.occlude:
        image, label = occlude(image, label, rng)
    if rng.random() < strength.color:
        image = jitter_color(image, rng)
    if rng.random() < strength.gray:
        image = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    if rng.random() < strength.degrade:
        image = degrade(image, rng)
    return image, label


@dataclass(frozen=True)
class Framing:
    """Where each pixel of a warped picture comes from: map_x, map_y float32 [S,S] in the source's pixels.

    mirrored: left and right have changed places. blur: for the picture before it is sampled, 0 = none.
    """

    map_x: NDArray[np.float32]
    map_y: NDArray[np.float32]
    mirrored: bool
    blur: float

    def picture(self, image: Image) -> Image:
        if self.blur:
            image = cv2.GaussianBlur(image, (0, 0), self.blur)
        return self.label(image)

    def label(self, label: Image) -> Image:
        """Any number of channels. Reflection repeats face, hair and label alike, so what is shown outside the
        picture is still labelled right.
        """
        sampled = cv2.remap(label, self.map_x, self.map_y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT_101)
        return np.asarray(sampled, np.uint8)


def warp(
    image: Image, label: Image, size: int, rng: np.random.Generator, strength: Augmentation
) -> tuple[Image, Image]:
    """Rotation, zoom, aspect, shift, perspective, flip and a smooth elastic field, sampled in a single remap."""
    framing = new_framing((image.shape[0], image.shape[1]), size, rng, strength)
    return framing.picture(image), framing.label(label)


def new_framing(shape: tuple[int, int], size: int, rng: np.random.Generator, strength: Augmentation) -> Framing:
    """Draw the warp of a picture of (height, width) to size x size."""
    height, width = shape
    angle = np.deg2rad(rng.uniform(-strength.rotation, strength.rotation))
    zoom = np.exp(rng.uniform(*np.log(strength.zoom)))
    aspect = np.exp(rng.uniform(-0.12, 0.12))
    mirror = -1.0 if rng.random() < strength.flip else 1.0
    grid = np.linspace(-1, 1, size, dtype=np.float32)
    x, y = np.meshgrid(grid, grid)
    tilt = rng.uniform(-strength.perspective, strength.perspective, 2)
    depth = 1 + tilt[0] * x + tilt[1] * y
    x, y = x / depth * (mirror * aspect / zoom), y / depth / (aspect * zoom)
    if rng.random() < strength.elastic:
        field = rng.normal(0, 0.035, (2, 5, 5)).astype(np.float32)
        x = x + cv2.resize(field[0], (size, size), interpolation=cv2.INTER_CUBIC)
        y = y + cv2.resize(field[1], (size, size), interpolation=cv2.INTER_CUBIC)
    cos, sin = np.cos(angle), np.sin(angle)
    dx, dy = rng.uniform(-2 * strength.shift, 2 * strength.shift, 2)
    map_x = ((cos * x - sin * y + dx + 1) * width / 2 - 0.5).astype(np.float32)
    map_y = ((sin * x + cos * y + dy + 1) * height / 2 - 0.5).astype(np.float32)
    shrinks = size * zoom < 0.75 * height  # then blur first, a plain remap would alias
    return Framing(map_x, map_y, mirror < 0, 0.4 * height / (size * zoom) if shrinks else 0.0)


def replace_background(image: Image, parsing: Image, rng: np.random.Generator, donor: Image | None) -> Image:
    """Put something else behind the person. The hair map stays true: the background holds no hair."""
    person = cv2.GaussianBlur((parsing != BACKGROUND_CLASS).astype(np.float32), (0, 0), 1.0)[..., None]
    height, width = parsing.shape
    kind = rng.integers(3)
    if kind == 0 or (kind == 1 and donor is None):
        behind = np.full(image.shape, rng.integers(0, 256, 3), np.float32)
    elif kind == 1:
        # A corner of another picture, blown up and blurred beyond recognition: real colours, no second head of hair.
        patch = donor[: donor.shape[0] // 4, : donor.shape[1] // 4] if donor is not None else image
        behind = cv2.GaussianBlur(cv2.resize(patch, (width, height)), (0, 0), 6).astype(np.float32)
    else:
        coarse = rng.integers(0, 256, (rng.integers(2, 9), rng.integers(2, 9), 3)).astype(np.float32)
        behind = cv2.resize(coarse, (width, height), interpolation=cv2.INTER_CUBIC)
    return np.asarray(np.clip(person * image + (1 - person) * behind, 0, 255)).astype(np.uint8)


Person = tuple[Image, Image, Image]  # RGB [H,W,3], class ids [H,W], 19-class ids [H,W]


def beside(person: Person, other: Person, rng: np.random.Generator, image: Image) -> tuple[Image, Image]:
    """Somebody else in the same picture, mostly behind the first person: RGB and class ids.

    image: the first person's, as it is after other steps.
    """
    _, classes, parsing = person
    height, width = classes.shape
    side = round(rng.uniform(0.5, 1.0) * height)
    left = round((0.5 + rng.choice((-1, 1)) * rng.uniform(0.35, 0.75)) * width - side / 2)
    top = round(rng.uniform(-0.1, 0.5) * (height - side) + 0.25 * (height - side))
    rows, columns = slice(max(top, 0), min(top + side, height)), slice(max(left, 0), min(left + side, width))
    if rows.start >= rows.stop or columns.start >= columns.stop:
        return image, classes
    own = np.s_[rows.start - top : rows.stop - top, columns.start - left : columns.stop - left]
    resized = cv2.resize(other[0], (side, side), interpolation=cv2.INTER_AREA)[own]
    ids, body = (cv2.resize(part, (side, side), interpolation=cv2.INTER_NEAREST)[own] for part in other[1:])
    shown = body != BACKGROUND_CLASS
    if rng.random() < 0.75:  # behind
        shown &= parsing[rows, columns] == BACKGROUND_CLASS
    cover = cv2.GaussianBlur(shown.astype(np.float32), (0, 0), 0.8)[..., None]
    image, classes = image.copy(), classes.copy()
    image[rows, columns] = (cover * resized + (1 - cover) * image[rows, columns] + 0.5).astype(np.uint8)
    classes[rows, columns] = np.where(shown, ids, classes[rows, columns])
    return image, classes


def recolor_hair(image: Image, label: Image, rng: np.random.Generator) -> Image:
    """Another hair colour, natural or dyed: gain and gamma on the brightness, a mixed-in tint."""
    share = label.astype(np.float32)[..., None] / 255
    pixels = image.astype(np.float32) / 255
    bright = pixels.mean(2, keepdims=True) ** rng.uniform(0.6, 1.7) * rng.uniform(0.4, 1.5)
    if rng.random() < 0.5:  # natural: from black over brown and red to blond and grey
        low, high = np.array([0.55, 0.35, 0.2]), np.array([1.25, 1.1, 0.95])
        tint = low + (high - low) * rng.random(3)
        tint = np.sort(tint)[::-1]
    else:
        tint = rng.uniform(0.2, 1.6, 3)
    amount = rng.uniform(0.4, 1.0)
    dyed = (1 - amount) * pixels + amount * bright * tint.astype(np.float32)
    return np.asarray(np.clip((share * dyed + (1 - share) * pixels) * 255, 0, 255)).astype(np.uint8)


def jitter_color(image: Image, rng: np.random.Generator) -> Image:
    """Gamma, gain per channel, contrast, saturation; as one table per channel plus a grey mix."""
    ramp = np.arange(256, dtype=np.float32) / 255
    gamma, contrast = np.exp(rng.uniform(-0.45, 0.45)), rng.uniform(0.65, 1.35)
    gains = np.exp(rng.uniform(-0.15, 0.15, 3)) * np.exp(rng.uniform(-0.3, 0.3))
    curve = (ramp**gamma - 0.5) * contrast + 0.5
    table = np.clip(curve[:, None] * gains * 255, 0, 255).astype(np.uint8).reshape(1, 256, 3)
    image = cv2.LUT(image, table)
    saturation = rng.uniform(0.4, 1.5)
    gray = cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    return np.asarray(cv2.addWeighted(image, saturation, gray, 1 - saturation, 0), np.uint8)


def degrade(image: Image, rng: np.random.Generator) -> Image:
    """A worse camera: one of lower resolution, blur, noise, JPEG."""
    size = image.shape[0]
    kind = rng.integers(4)
    if kind == 0:
        small = max(32, int(size * rng.uniform(0.25, 0.7)))
        down = cv2.resize(image, (small, small), interpolation=cv2.INTER_AREA)
        return np.asarray(cv2.resize(down, (size, size), interpolation=cv2.INTER_LINEAR), np.uint8)
    if kind == 1:
        return np.asarray(cv2.GaussianBlur(image, (0, 0), rng.uniform(0.4, 1.8)), np.uint8)
    if kind == 2:
        noise = rng.normal(0, rng.uniform(2, 14), image.shape).astype(np.float32)
        return np.asarray(np.clip(image + noise, 0, 255)).astype(np.uint8)
    return read_back(encode_image(image, "jpeg", int(rng.integers(20, 80))))


def read_back(code: bytes) -> Image:
    """Decode what was just encoded, RGB."""
    return np.asarray(cv2.imdecode(np.frombuffer(code, np.uint8), cv2.IMREAD_COLOR_RGB), np.uint8)


def occlude(image: Image, label: Image, rng: np.random.Generator) -> tuple[Image, Image]:
    """A plain soft blob in front of the picture (a hand, a hat, a prop): hair behind it is not visible."""
    size = image.shape[0]
    axes = (rng.uniform(0.05, 0.2, 2) * size).astype(int)
    centre = (rng.uniform(0, 1, 2) * size).astype(int)
    mask = np.zeros(label.shape, np.float32)
    cv2.ellipse(mask, centre.tolist(), axes.tolist(), float(rng.uniform(0, 180)), 0, 360, 1.0, -1, cv2.LINE_AA)
    color = rng.integers(0, 256, 3).astype(np.float32)
    cover = mask[..., None]
    return (
        ((1 - cover) * image + cover * color).astype(np.uint8),
        ((1 - mask) * label).astype(np.uint8),
    )


def clutter(
    image: Image, label: Image, rng: np.random.Generator, donor: tuple[Image, Image] | None
) -> tuple[Image, Image]:
    """Things that are no hair but have its colours, sheen and stripes: collars, rings, cloth, jewellery, walls.

    A shape (ellipse, ring or band) is filled with a striped gradient or with what another picture shows outside its
    hair. Few training pictures show more than hair and face, so a student would take much else for hair.
    """
    size = image.shape[0]
    shape = np.zeros(label.shape, np.float32)
    # Mostly below the face, where clothes are; seldom over it.
    centre = [int(rng.uniform(0, 1) * size), int((1 - rng.beta(1.2, 2.5)) * size)]
    axes = [int(v * size) for v in rng.uniform(0.06, 0.4, 2)]
    thick = -1 if rng.random() < 0.5 else int(rng.uniform(0.02, 0.12) * size) + 1
    angle = float(rng.uniform(0, 180))
    cv2.ellipse(shape, centre, axes, angle, 0, 360, 1.0, thick, cv2.LINE_AA)
    if donor is not None and rng.random() < 0.4:
        zoom = int(size * rng.uniform(1.0, 2.0))
        corner = rng.integers(0, zoom - size + 1, 2)
        area = (slice(corner[0], corner[0] + size), slice(corner[1], corner[1] + size))
        filling = cv2.resize(donor[0], (zoom, zoom))[area].astype(np.float32)
        shape *= 1 - cv2.resize(donor[1], (zoom, zoom))[area].astype(np.float32) / 255
    else:
        grid = np.linspace(-1, 1, size, dtype=np.float32)
        x, y = np.meshgrid(grid, grid)
        turn = rng.uniform(0, np.pi)
        wave = np.sin((np.cos(turn) * x + np.sin(turn) * y) * rng.uniform(1, 60) + rng.uniform(0, 6.3))
        sheen = np.sin((np.cos(turn + 1) * x + np.sin(turn + 1) * y) * rng.uniform(0.5, 8) + rng.uniform(0, 6.3))
        light = 0.5 + rng.uniform(0, 0.4) * wave + rng.uniform(0, 0.4) * sheen
        low, high = rng.integers(0, 256, 3), rng.integers(0, 256, 3)
        if rng.random() < 0.5:  # metal and grey cloth
            low[:], high[:] = low[0], high[0]
        filling = np.clip(low + (high - low) * light[..., None], 0, 255).astype(np.float32)
    cover = shape[..., None]
    return (
        ((1 - cover) * image + cover * filling).astype(np.uint8),
        ((1 - shape) * label).astype(np.uint8),
    )
