"""JPEG on the device by nvImageCodec: pictures leave it as files, a tenth of the bytes.

Its bytes are not OpenCV's, so a job says which encoder it has and never changes it by what happens to be installed.
"""

from __future__ import annotations

import importlib
import threading
from collections.abc import Sequence
from typing import Any, get_args

import cv2
import numpy as np

from ohlora.base.types import Encoder, check_choice
from ohlora.errors import EngineError, InvalidInputError
from ohlora.kernels.gpu.arrays import uploaded
from ohlora.render.job import OutputFormat

PACKAGE = "nvidia.nvimgcodec"
# Of a smooth picture at quality 50 and above: far more than a wrong channel order or a wrong size would leave.
LEAST_DECIBELS = 30.0


def check_encoder(name: str, output: OutputFormat) -> None:
    """Raises InvalidInputError: an unknown encoder, one that is not installed or does not write this format."""
    if check_choice("encoder", name, get_args(Encoder)) == "cpu":
        return
    if output.format != "jpeg":
        raise InvalidInputError(f"--encoder nvimgcodec writes jpeg, not {output.format}: use --encoder cpu")
    try:
        importlib.import_module(PACKAGE)
    except ImportError as error:
        raise InvalidInputError(
            "--encoder nvimgcodec needs nvImageCodec (pip install 'nvidia-nvimgcodec-cu13[nvjpeg]'): or use --encoder "
            "cpu"
        ) from error


class DeviceEncoder:
    """Encodes pictures of one device, uint8 RGB [H,W,3] each, as JPEG of `quality`, 4:2:0. Tested when it is made.

    Raises EngineError when the codec does not work here. May be called from several threads; one encodes at a time.
    """

    def __init__(self, device: int, quality: int, stream: int) -> None:
        self._codec = codec = importlib.import_module(PACKAGE)
        self._stream, self._lock = stream, threading.Lock()
        try:
            self._encoder = codec.Encoder(device_id=device)
            self._parameters = codec.EncodeParams(
                quality_type=codec.QualityType.QUALITY,
                quality_value=float(quality),
                chroma_subsampling=codec.ChromaSubsampling.CSS_420,
            )
            ramp = np.arange(64, dtype=np.uint8)
            picture = np.stack([np.broadcast_to(3 * ramp, (64, 64)), np.broadcast_to(2 * ramp[:, None], (64, 64)),
                                np.full((64, 64), 40, np.uint8)], axis=2)  # fmt: skip
            data = self([uploaded(np.ascontiguousarray(picture), device)])[0]
        except EngineError:
            raise
        except Exception as error:  # the library's own: no nvJPEG, another driver
            text = " ".join(str(error).split())[:300]
            raise EngineError(f"nvImageCodec does not work here ({text}): use --encoder cpu") from error
        _require_like(picture, data, quality)

    def __call__(self, images: Sequence[Any]) -> list[bytes]:
        """Wait for the stream, encode, and return the files' bytes."""
        with self._lock:
            wrapped = self._codec.as_images(list(images), cuda_stream=self._stream)
            streams = self._encoder.encode(wrapped, "jpeg", params=self._parameters, cuda_stream=self._stream)
        files = [None if stream is None else bytes(memoryview(stream)) for stream in streams]
        if not files or any(not data for data in files):
            raise EngineError("nvImageCodec refused a picture: use --encoder cpu")
        return [data for data in files if data]


def _require_like(picture: np.ndarray, data: bytes, quality: int) -> None:
    decoded = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    if decoded is None or decoded.shape != picture.shape:
        raise EngineError("nvImageCodec's file of the test picture cannot be read: use --encoder cpu")
    error = float(np.mean((decoded[..., ::-1].astype(np.float64) - picture) ** 2))
    decibels = 10 * np.log10(255**2 / max(error, 1e-9))
    if quality >= 50 and decibels < LEAST_DECIBELS:
        raise EngineError(f"nvImageCodec's test picture comes back at {decibels:.1f} dB only: use --encoder cpu")
