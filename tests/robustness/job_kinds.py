"""Every kind of job that is killed here: a table of commands. A new kind is one entry."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ohlora.io.animation import write_animation
from ohlora.io.images import encode_image

FRAMES = 24


@dataclass(frozen=True)
class Inputs:
    """What the commands read beside the bundle that ships: photographs and videos, made by `make_inputs`."""

    photos: Path
    videos: Path


@dataclass(frozen=True)
class JobKind:
    """arguments: of the command, without --out."""

    name: str
    arguments: Callable[[Inputs], tuple[object, ...]]


def _render(backend: str) -> Callable[[Inputs], tuple[object, ...]]:
    job = ("--count", 24, "--color", "0.1,0.6", "--contact-sheet", "--backend", backend)
    return lambda inputs: ("render", *job)


def _animate(format: str) -> Callable[[Inputs], tuple[object, ...]]:
    job = ("--color", f"0:1:{FRAMES}", "--format", format)
    return lambda inputs: ("animate", inputs.photos, *job)


KINDS = (
    JobKind("render-openvino", _render("openvino")),
    JobKind("render-onnxruntime", _render("onnxruntime")),
    JobKind(
        "recolor-photos",
        lambda inputs: (
            *("recolor", inputs.photos, "--detect", "whole"),
            *("--color", "0.1,0.6", "--contact-sheet"),
        ),
    ),
    JobKind(
        "recolor-videos",
        lambda inputs: ("recolor", inputs.videos, "--detect", "whole", "--color", "0.1,0.6"),
    ),
    JobKind("animate-mp4", _animate("mp4")),
    JobKind("animate-gif", _animate("gif")),
)


def make_inputs(folder: Path) -> Inputs:
    inputs = Inputs(folder / "photos", folder / "videos")
    inputs.photos.mkdir()
    inputs.videos.mkdir()
    rng = np.random.default_rng(0)
    for number in range(20):
        small = rng.integers(0, 256, (8, 8, 3), np.uint8)
        image = cv2.resize(small, (96 + 2 * number, 120), interpolation=cv2.INTER_CUBIC)
        (inputs.photos / f"{number:02d}.jpg").write_bytes(encode_image(image, "jpeg"))
        if number < 4:
            frames = [np.ascontiguousarray(np.roll(image, step, axis=1)) for step in range(FRAMES)]
            write_animation(inputs.videos / f"{number:02d}.mp4", frames, fps=12, format="mp4")
    return inputs
