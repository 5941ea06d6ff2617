"""`ohlora render --device cuda`: the job's work on one GPU, or on several by a process each."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from ohlora.engines.gpu.device import BUCKET, backend_for, engine_of
from ohlora.render.gpu.devices import DeviceSetting
from ohlora.render.gpu.encode import check_encoder
from ohlora.render.gpu.pipeline import run_on_device
from ohlora.render.gpu.processes import DeviceJob, run_on_devices
from ohlora.render.job import RenderJob
from ohlora.render.pipeline import Record, Totals
from ohlora.render.plan import PortraitPlan
from ohlora.render.renderer import Renderer
from ohlora.render.sinks import FolderSink


class DeviceWork:
    """`execute.Work` on GPUs. runs: portraits made."""

    def __init__(
        self,
        renderer: Renderer,
        job: RenderJob,
        devices: Sequence[int],
        backend: str,
        precision: str,
        batch: int | None,
        engines: Path | None,
        encoder: str,
    ) -> None:
        chosen = "fp32" if precision == "auto" else precision
        self._renderer, self._job, self._devices = renderer, job, devices
        check_encoder(encoder, job.output)
        self._setting = DeviceSetting(backend_for(backend, chosen, engines), chosen, batch or BUCKET, engines, encoder)
        self.runs = 0

    def provenance(self) -> dict[str, Any]:
        """As `Renderer.provenance`. The number of the device and how many there are make no difference."""
        bundle, setting = self._renderer.bundle, self._setting
        engine = f"{setting.backend}-{setting.precision}"
        if setting.engines is not None:  # each build is one of a kind, of its own precision
            _, built = engine_of(bundle.file(bundle.generator_part().synthesis), setting.engines)
            engine = f"tensorrt-{built.precision}-{built.engine_sha256[:12]}"
        row = {"bundle": bundle.name, "bundle_sha256": bundle.identity, "engine": f"{engine} on cuda"}
        return row if setting.encoder == "cpu" else {**row, "encoder": setting.encoder}

    def __call__(
        self,
        plan: PortraitPlan,
        pending: Sequence[int],
        sink: FolderSink,
        record: Record,
        workers: int,
        advance: Callable[[int], None],
    ) -> Totals:
        if len(self._devices) == 1:
            pipeline = self._renderer.device_pipeline(self._job, self._devices[0], self._setting)
            with closing(pipeline):
                totals = run_on_device(plan.units(pending), pipeline, sink, record, workers=workers, advance=advance)
        else:
            directions = self._renderer.directions_override
            request = DeviceJob(
                self._renderer.bundle.path, self._job, sink.folder, sink.provenance, directions, self._setting,
                max(1, workers // len(self._devices)),
            )  # fmt: skip
            totals = run_on_devices(request, self._devices, pending, record, advance)
        self.runs = totals.units
        return totals
