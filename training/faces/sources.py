"""Where the faces of `faces-set` come from: a generator's bundle, or a folder of photographs."""

from __future__ import annotations

from abc import abstractmethod
from collections import defaultdict
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from ohlora.base.closing import Closing
from ohlora.base.types import PrecisionChoice, Rgb
from ohlora.base.values import Z_SIZE, random_stream
from ohlora.bundle import Bundle, file_sha256
from ohlora.errors import ImageError, InvalidInputError
from ohlora.faces import latents_of_seeds
from ohlora.io.images import list_images, read_image
from ohlora.photos.face_alignment import Frame, cut_out, portrait_frame, whole_picture
from ohlora.photos.face_detector import FaceDetector
from ohlora.photos.heads import wide_frame
from ohlora.render.sources import truncate
from ohlora.training.data.portrait_faces import HELD_OUT_SEEDS, TEST_SEEDS, TRAIN_SEEDS, check_seeds
from ohlora.training.faces.kinds import RARE
from ohlora.training.faces.recipe import FacesRecipe

SEEDS = {"train": TRAIN_SEEDS, "held-out": HELD_OUT_SEEDS, "test": TEST_SEEDS}
LATENT, VIEW = 1, 2  # streams of random numbers, so that what one draws does not move the other
WHOLE, PORTRAIT, WIDE, CROP = "whole", "portrait", "wide", "crop"
FREQUENT = 0.1  # kinds of this fraction of the first round need no more faces
Row = dict[str, Any]


@dataclass(frozen=True)
class Shown:
    """A face for the teacher. image: uint8 RGB. frame: the part that is stored. side: of the stored image."""

    number: int
    image: Rgb
    frame: Frame
    side: int
    facts: Row


class FaceSource(Closing):
    """Numbered faces. identity: what decides them, for the folder's record."""

    identity: Row
    recipe: FacesRecipe
    detector: FaceDetector

    @abstractmethod
    def rounds(self, finished: Mapping[int, Row]) -> Sequence[range]:
        """Numbers of the set; those of a later round depend on the finished rows of the ones before."""

    @abstractmethod
    def show(self, numbers: Sequence[int], finished: Mapping[int, Row]) -> list[Shown | Row]:
        """Faces of some numbers of one round; a row with "error" for one that cannot be shown."""

    def stream(self, number: int, purpose: int) -> np.random.Generator:
        """Random numbers of one face for one purpose."""
        return random_stream({"seed": self.recipe.seed, "number": number}, stream=purpose)


class BundleFaces(FaceSource):
    """Faces of a bundle's generator: first the seeds in order, then faces near those of rare kinds.

    Raises InvalidInputError for a generator that takes labels, or a count that is not possible.
    """

    def __init__(self, bundle: Bundle, recipe: FacesRecipe, count: int, *, precision: PrecisionChoice = "auto") -> None:
        self.bundle, self.recipe, self.count, self.detector = bundle, recipe, count, FaceDetector()
        self.part, self.seeds = bundle.generator_part(), check_seeds(SEEDS[recipe.part].start, count)
        if self.part.label_size or self.part.z_size != Z_SIZE:
            raise InvalidInputError(
                f"the generator of bundle '{bundle.name}' takes {self.part.z_size} latent and {self.part.label_size} "
                f"label values: faces-set needs one that takes {Z_SIZE} and none"
            )
        self.identity = {"bundle": bundle.name, "generator": bundle.generator_identity, "precision": precision}
        self._kinds: dict[str, list[int]] | None = None
        self._precision = precision

    @cached_property
    def _engines(self) -> Any:
        return self.bundle.generator_engines(precision=self._precision)

    def close(self) -> None:
        if "_engines" in self.__dict__:
            with ExitStack() as stack:
                for engine in self._engines:
                    stack.callback(engine.close)

    def rounds(self, finished: Mapping[int, Row]) -> Sequence[range]:
        first = self.count - round(self.count * self.recipe.varied_now)
        return range(first), range(first, self.count)

    def show(self, numbers: Sequence[int], finished: Mapping[int, Row]) -> list[Shown | Row]:
        mapping, synthesis = self._engines
        plans = [self._plan(number, finished) for number in numbers]
        seeds = sorted({seed for plan in plans for seed in plan["seeds"]})
        z, _ = latents_of_seeds(seeds)
        w = dict(zip(seeds, mapping(z=z)["w"], strict=True))
        wp = []
        for plan in plans:
            own, other = w[plan["seeds"][0]], w[plan["seeds"][-1]]
            mixed = own + np.float32(plan["toward"]) * (other - own)
            wp.append(
                truncate(mixed[None], self.bundle.w_avg(), self.part.num_layers, plan["psi"], self.part.num_layers)
            )
        images = synthesis(wp=np.concatenate(wp))["image"]
        return [self._shown(plan, image) for plan, image in zip(plans, images, strict=True)]

    def _plan(self, number: int, finished: Mapping[int, Row]) -> Row:
        """Seeds (one, or two of a face between them), how far toward the second, psi, and the kind it was drawn for."""
        draw, (first, _) = self.stream(number, LATENT), self.rounds(finished)
        plan: Row = {
            "number": number,
            "psi": round(float(draw.uniform(*self.recipe.psi)), 4),
            "toward": 0.0,
            "near": None,
        }
        if number in first:
            return {**plan, "seeds": [self.seeds[number]]}
        known = self._known_kinds(finished, first)
        kinds = [kind for kind in RARE if 0 < len(known.get(kind, ())) < FREQUENT * len(first)]
        near = kinds[number % len(kinds)] if kinds else None
        own = int(draw.choice(known[near])) if near else int(draw.integers(len(first)))
        other, toward = int(draw.integers(len(first))), round(float(draw.uniform(*self.recipe.toward)), 4)
        return {**plan, "seeds": [self.seeds[own], self.seeds[other]], "toward": toward, "near": near}

    def _known_kinds(self, finished: Mapping[int, Row], first: range) -> dict[str, list[int]]:
        """Numbers of the first round by kind: read once, when the round is over."""
        if self._kinds is None:
            kinds: dict[str, list[int]] = defaultdict(list)
            for number in first:
                for kind in finished[number]["kinds"] if number in finished else ():
                    kinds[kind].append(number)
            self._kinds = dict(kinds)
        return self._kinds

    def _shown(self, plan: Row, image: Rgb) -> Shown:
        draw, recipe, height, width = self.stream(plan["number"], VIEW), self.recipe, *image.shape[:2]
        side, chance = int(draw.choice(recipe.sizes)), float(draw.random())
        frame, view = whole_picture(height, width), WHOLE
        if chance < recipe.portraits:
            found = self.detector.detect(image)
            if len(found):
                frame, view = portrait_frame(found.landmarks[0]), PORTRAIT
        elif chance < recipe.portraits + recipe.crops:
            length = float(draw.uniform(recipe.crop, 1)) * min(height, width)
            x, y = draw.uniform(length / 2, width - length / 2), draw.uniform(length / 2, height - length / 2)
            frame, view = Frame((float(x), float(y)), (1.0, 0.0), length, length), CROP
        return Shown(plan["number"], image, frame, side, {**plan, "view": view})


class Photographs(FaceSource):
    """The largest head of each photograph of some folders, as a portrait or with its wider surroundings.

    Raises InvalidInputError where there is none.
    """

    def __init__(
        self, folders: Sequence[Path], recipe: FacesRecipe, count: int | None, recursive: bool = False
    ) -> None:
        self.recipe, self.detector = recipe, FaceDetector()
        self.paths = list_images(list(folders), recursive)[:count]
        if not self.paths:
            raise InvalidInputError(f"no photograph in {', '.join(map(str, folders))}: give folders of images")
        self.identity = {"photographs": len(self.paths)}

    def close(self) -> None:
        """Nothing is held."""

    def rounds(self, finished: Mapping[int, Row]) -> Sequence[range]:
        return (range(len(self.paths)),)

    def show(self, numbers: Sequence[int], finished: Mapping[int, Row]) -> list[Shown | Row]:
        return [self._show(number) for number in numbers]

    def _show(self, number: int) -> Shown | Row:
        path, draw = self.paths[number], self.stream(number, VIEW)
        row: Row = {"number": number, "source": str(path)}
        try:
            image = read_image(path)
            row["sha256_source"] = file_sha256(path)
            found = self.detector.detect(image)
        except (ImageError, OSError) as error:
            return {**row, "error": str(error)}
        if not len(found):
            return {**row, "error": f"no face found in {path}"}
        side, chance = int(draw.choice(self.recipe.sizes)), float(draw.random())
        frame = portrait_frame(found.landmarks[0])
        # The teacher knows portraits: it is shown the wider surroundings, which hold the portrait.
        view, stored = (PORTRAIT, frame) if chance < 0.5 else (WIDE, wide_frame(frame))
        wide, square = wide_frame(frame), 2 * max(self.recipe.sizes)
        shown, inside = cut_out(image, wide, square, square), _within(stored, wide, square)
        return Shown(number, shown, inside, side, {**row, "faces": len(found), "view": view})


def _within(frame: Frame, outer: Frame, side: int) -> Frame:
    """A frame of a photograph, in the pixels of a cutout of `outer` with `side` pixels."""
    scale = side / outer.width
    offset = np.subtract(frame.centre, outer.centre)
    x, y = float(offset @ np.array(outer.right)), float(offset @ np.array(outer.down))
    return Frame((side / 2 + x * scale, side / 2 + y * scale), (1.0, 0.0), frame.width * scale, frame.height * scale)


def cut_classes(classes: NDArray[np.uint8], frame: Frame, side: int) -> NDArray[np.uint8]:
    """What a frame shows of a class map [H,W]: [side,side], nearest, mirrored beyond the border as images are."""
    shown = cv2.warpAffine(
        classes,
        frame.matrix(side, side),
        (side, side),
        flags=cv2.INTER_NEAREST | cv2.WARP_INVERSE_MAP,
        borderMode=cv2.BORDER_REFLECT_101,
    )
    return np.asarray(shown, np.uint8)
