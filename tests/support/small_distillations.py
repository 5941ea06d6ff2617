"""A distillation of seconds, and pictures with hair for it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np

from ohlora.training.data.portrait_faces import PortraitFace
from ohlora.training.students.recipes import PRESETS

BACKGROUNDS = [(40, 40, 40), (200, 60, 60), (60, 200, 60), (60, 60, 200), (200, 200, 60), (220, 220, 220)]
# What makes a training of a student short.
SHORT: dict[str, Any] = {
    "imagenet": False, "phases": ((64, 2),), "batch_size": 4, "evaluate_every": 1, "warmup_steps": 2, "holdout": 0.34,
}  # fmt: skip
TINY = replace(PRESETS["few-faces"], **SHORT | {"phases": ((64, 2), (96, 2)), "holdout": PRESETS["few-faces"].holdout})


def write_face(folder: Path, name: str, image: np.ndarray, **maps: np.ndarray) -> None:
    """NAME and below KIND/ the maps NAME.png of a labelled face."""
    cv2.imwrite(str(folder / name), image[..., ::-1])
    for kind, label in maps.items():
        (folder / kind).mkdir(exist_ok=True)
        cv2.imwrite(str(folder / kind / f"{Path(name).stem}.png"), label)


def write_portraits(folder: Path, sizes: list[int]) -> Path:
    """ "Real" people with their maps: portraits of seeds that nothing else uses, as real0.png ..."""
    for seed, size in enumerate(sizes):
        face = PortraitFace(seed, size)
        image, hair, _ = face.read()
        write_face(folder, f"real{seed}.png", image, hair_soft=hair, parsing11=face.read_classes()[1])
    return folder


def portrait(person: int, variant: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """A drawn head before a plain background: RGB, hair*255, 19-class parsing. One look per person."""
    look = np.random.default_rng(person)
    jitter = np.random.default_rng((person, variant))
    image = np.full((256, 256, 3), BACKGROUNDS[person], np.uint8)
    hair, parsing = np.zeros((256, 256), np.uint8), np.zeros((256, 256), np.uint8)
    centre = (128 + int(jitter.integers(-4, 5)), 120 + int(jitter.integers(-4, 5)))
    color = look.integers(0, 256, 3).tolist()
    cv2.ellipse(hair, centre, (80, 100), 0, 0, 360, 255, -1, cv2.LINE_AA)
    cv2.ellipse(hair, (centre[0], centre[1] + 25), (50, 65), 0, 0, 360, 0, -1, cv2.LINE_AA)
    image[hair > 127] = color
    parsing[hair > 127] = 17
    face = np.zeros_like(hair)
    cv2.ellipse(face, (centre[0], centre[1] + 25), (50, 65), 0, 0, 360, 255, -1)
    image[(face > 0) & (hair <= 127)] = (224, 180, 150)
    parsing[(face > 0) & (hair <= 127)] = 1
    return image, hair, parsing
