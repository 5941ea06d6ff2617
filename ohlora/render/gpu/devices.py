"""Where to render: `--device` as device numbers, and a bundle's chain opened on one of them."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ohlora.base.installation import install_command
from ohlora.base.types import Compat, DeviceBackend, Encoder, FloatPrecision
from ohlora.engines.gpu.device import BUCKET
from ohlora.errors import EngineError, InvalidInputError
from ohlora.kernels.gpu.arrays import CudaUnavailableError, device_count, require_kernels
from ohlora.render.job import RenderJob

if TYPE_CHECKING:
    from ohlora.bundle import Bundle
    from ohlora.render.gpu.chain import DeviceChain

_LOG = logging.getLogger("ohlora")


@dataclass(frozen=True)
class DeviceSetting:
    """How a GPU renders. engines: folder of TensorRT engines. bucket: portraits at once, halved if memory is short.

    encoder: 'cpu' or 'nvimgcodec' (`encode`).
    """

    backend: DeviceBackend = "auto"
    precision: FloatPrecision = "fp32"
    bucket: int = BUCKET
    engines: Path | None = None
    encoder: Encoder = "cpu"


def chosen_devices(text: str) -> list[int]:
    """'cpu' -> [], 'cuda' -> [0], 'cuda:1' -> [1], 'cuda:0,cuda:1' -> [0, 1], 'cuda:all' -> every one.

    'auto' is the first GPU, or with one line of warning the CPU. Raises InvalidInputError for another word, an index
    that is not there, and for 'cuda' where no GPU can be used, saying why.
    """
    if text == "cpu":
        return []
    if text == "auto":
        try:
            device_count()
            require_kernels(0)
        except CudaUnavailableError as error:
            _LOG.warning("rendering on the CPU: %s", error.reason)
            return []
        return [0]
    names = text.split(",")
    for name in names:
        index = name.removeprefix("cuda").removeprefix(":")
        if not name.startswith("cuda") or (index and index != "all" and not index.isdecimal()):
            raise InvalidInputError(
                f"unknown device '{name}': choose cpu, auto, cuda, cuda:N, cuda:0,cuda:1 or cuda:all"
            )
    try:
        count = device_count()
    except CudaUnavailableError as error:
        if error.extra:
            remedy = f"{install_command(error.extra)}, or use --device cpu"
            raise InvalidInputError(f"--device {text}: {error.reason}: {remedy}") from error
        raise InvalidInputError(f"--device {text}: {error}".replace("backend 'cpu'", "--device cpu")) from error
    if text == "cuda:all":
        return list(range(count))
    numbers = [int(name.removeprefix("cuda").removeprefix(":") or 0) for name in names if name != "cuda:all"]
    if len(numbers) < len(names) or len(set(numbers)) < len(numbers):
        raise InvalidInputError(f"--device {text} names a device twice")
    for number in numbers:
        if number >= count:
            raise InvalidInputError(
                f"there is no cuda:{number}: this machine has {count} CUDA device{'s' * (count != 1)}"
            )
    return numbers


def open_chain(
    bundle: Bundle,
    job: RenderJob,
    device: int,
    setting: DeviceSetting,
    bucket: int,
    *,
    dyes: bool,
    noise: int | None = None,
    compat: Compat | None = None,
) -> DeviceChain:
    """Engines of `bundle` and the kernels between them, for buckets of `bucket` portraits.

    dyes: whether portraits are dyed there; then the hair finder is opened too.
    noise: as of `Bundle.synthesis_engine`. compat: as of `Renderer`.
    Raises EngineError; BundleError without a needed network.
    """
    from ohlora.render.gpu.chain import DeviceChain, Streams
    from ohlora.render.gpu.encode import DeviceEncoder

    try:
        streams = Streams(device)
    except CudaUnavailableError as error:
        raise EngineError(str(error)) from error
    options: dict[str, Any] = {
        "device": device,
        "stream": streams.address,
        "backend": setting.backend,
        "precision": setting.precision,
        "bucket": bucket,
        "engines": setting.engines,
    }
    synthesis = bundle.device_engine("synthesis", noise=noise, **options)
    hair = None
    try:
        if dyes:
            hair = bundle.device_engine("hair", input="documented" if compat else None, **options)
        encoder = None
        if setting.encoder != "cpu":
            encoder = DeviceEncoder(device, job.output.quality, streams.address)
        rounding, unweighted = job.output.rounding, compat == "documented"
        return DeviceChain(
            streams, synthesis, hair, rows=bucket, rounding=rounding, unweighted=unweighted, encoder=encoder
        )
    except BaseException:
        for engine in (synthesis, hair):
            if engine is not None:
                engine.close()
        raise
