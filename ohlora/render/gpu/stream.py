"""A job's items as arrays, made on a device, for `Renderer.stream`: chains are opened once and kept between jobs."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ohlora.render.gpu.pipeline import DevicePipeline
from ohlora.render.job import RenderJob
from ohlora.render.plan import PortraitPlan
from ohlora.render.sources import JobLatents

Item = tuple[int, NDArray[np.uint8], dict[str, Any]]  # number, uint8 RGB [H,W,3], facts


class DeviceStreams:
    """make_pipeline, make_latents: of a job. A job that dyes needs other engines than one that does not, so there are
    two pipelines at most for each rounding.
    """

    def __init__(
        self, make_pipeline: Callable[[RenderJob], DevicePipeline], make_latents: Callable[[RenderJob], JobLatents]
    ) -> None:
        self._make_pipeline, self._make_latents = make_pipeline, make_latents
        self._pipelines: dict[tuple[bool, str], DevicePipeline] = {}

    def stream(self, job: RenderJob) -> Iterator[Item]:
        """Items in order; memory does not grow with the job."""
        key = (any(look.ombre is not None for look in job.looks), job.output.rounding)
        pipeline = self._pipelines.get(key)
        if pipeline is None:
            pipeline = self._pipelines[key] = self._make_pipeline(job)
        else:
            pipeline.latents = self._make_latents(job)
        # Outputs come by expression, whose items may alternate: those that are early wait here.
        made: dict[int, Item] = {}
        following = 0
        for batch in pipeline.finished(PortraitPlan(job).units(range(len(job)))):
            for image, output, facts in zip(batch.images, batch.outputs, batch.facts, strict=True):
                made[output.item] = (output.item, image.copy(), {**output.facts, **facts})
            batch.release()
            while following in made:
                yield made.pop(following)
                following += 1

    def close(self) -> None:
        for pipeline in self._pipelines.values():
            pipeline.close()
        self._pipelines.clear()
