"""One face, frame by frame: for windows, streams and animations of any length."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from itertools import islice

import numpy as np
from numpy.typing import NDArray

from ohlora.base.values import Expression, Face, Ombre
from ohlora.errors import ImageError, InvalidInputError
from ohlora.render.job import Look, RenderJob
from ohlora.render.plan import PortraitUnit
from ohlora.render.renderer import Renderer
from ohlora.render.sinks import Picture, dye, job_backends

# Looks under way at once in `frames`: enough to keep every engine stream busy, few enough to bound memory.
FRAMES_PER_CHUNK = 16


class MovingPortrait:
    """A face whose expression and dye change from frame to frame. Its w is computed once
    (docs/spec/runtime.md, sections 3 and 9).

    dyed: whether frames may have an ombre; without, no hair is looked for. moves: whether they may have an expression.
    Raises InvalidInputError when the bundle has no directions for this face, BundleError when it lacks a part.
    """

    def __init__(self, renderer: Renderer, face: Face, *, dyed: bool = True, moves: bool = True) -> None:
        # The producer opens what the looks of its job need, and keeps the w of the job's faces.
        wanted = Look(Expression(eyes=1.0) if moves else Expression(), Ombre(0.0) if dyed else None)
        self._producer = renderer.producer(RenderJob([face], (wanted,)))
        self._dyed, self._moves = dyed, moves
        self._shown: dict[Expression, Picture] = {}
        self._backends = job_backends()

    def frame(self, expression: Expression | None = None, ombre: Ombre | None = None) -> NDArray[np.uint8]:
        """The face with this expression and dye, uint8 RGB [R,R,3], the caller's own. None: as it is.

        Raises InvalidInputError for an ombre or expression that the portrait was made without.
        """
        return next(self.frames([Look(expression or Expression(), ombre)]))

    def frames(self, looks: Iterable[Look]) -> Iterator[NDArray[np.uint8]]:
        """As `frame` for each look, in order, several at a time and in bounded memory."""
        rest = iter(looks)
        while chunk := list(islice(rest, FRAMES_PER_CHUNK)):
            for look in chunk:
                self._check(look)
            self._generate(list(dict.fromkeys(look.expression for look in chunk)))
            for look in chunk:
                picture = self._shown[look.expression]
                image = dye(picture, look.ombre, backend=next(self._backends))
                # An undyed picture is kept for the frames to come: whoever draws on a frame draws on a copy.
                yield image.copy() if image is picture.image else image

    def _check(self, look: Look) -> None:
        for allowed, asked, option in (
            (self._dyed, look.ombre is not None, "dyed"),
            (self._moves, not look.expression.neutral, "moves"),
        ):
            if asked and not allowed:
                raise InvalidInputError(
                    f"this portrait was opened with {option}=False and is asked for {look}: open it with True"
                )

    def _generate(self, expressions: list[Expression]) -> None:
        """Fill `_shown`. What it shows already stays: a face at rest is generated once, however long it rests."""
        new = [expression for expression in expressions if expression not in self._shown]
        kept = {expression: self._shown[expression] for expression in expressions if expression in self._shown}
        made = self._producer.produce([PortraitUnit(0, expression, ()) for expression in new]) if new else []
        for expression, picture in zip(new, made, strict=True):
            if isinstance(picture, ImageError):
                raise picture
            kept[expression] = picture
        self._shown = kept
