"""What an engine file is, in a JSON file beside it: `NAME.engine`, `NAME.engine.json`. The engine itself stays plain.

Read without TensorRT: whether an engine may be used here is decided before the library is asked.
"""

from __future__ import annotations

import hashlib
from dataclasses import asdict, dataclass
from pathlib import Path

from ohlora.base.atomic import write_json
from ohlora.base.reading import read_file, read_object
from ohlora.engines.spec import EngineSpec
from ohlora.errors import EngineError

FORMAT = "ohlora-engine-1"


@dataclass(frozen=True)
class Sidecar:
    """One engine. batch: (min, opt, max) that it takes. compute_capabilities: ("8.9", ...); package: tensorrt or
    tensorrt_rtx, of `version`. model_sha256: of the ONNX file that it was built from; network_sha256: of the bundle's
    file that that one was lowered from, empty where there is none.
    """

    engine_sha256: str
    model_sha256: str
    package: str
    version: str
    compute_capabilities: tuple[str, ...]
    batch: tuple[int, int, int]
    precision: str
    spec: EngineSpec
    ohlora_version: str
    build_seconds: float
    layers: int
    network_sha256: str = ""

    def write(self, engine: Path) -> Path:
        """Beside `engine`, atomic. Returns its path."""
        content = asdict(self) | {"format": FORMAT, "spec": self.spec.to_json()}
        path = sidecar_path(engine)
        write_json(path, content)
        return path


def sidecar_path(engine: Path) -> Path:
    return engine.with_name(f"{engine.name}.json")


_AGAIN = "build the engine again (`ohlora export --to tensorrt`)"


def read_sidecar(engine: Path) -> Sidecar:
    """Raises EngineError when it is missing or damaged."""
    path = sidecar_path(engine)
    try:
        content = read_object(path, "sidecar", EngineError, remedy=_AGAIN)
        if content.pop("format") != FORMAT:
            raise ValueError("another format")
        content["spec"] = EngineSpec.from_json(content["spec"])
        content["compute_capabilities"] = tuple(content["compute_capabilities"])
        smallest, opt, largest = map(int, content["batch"])
        content["batch"] = (smallest, opt, largest)
        return Sidecar(**content)
    except (OverflowError, ValueError, TypeError, KeyError, AttributeError) as error:
        raise EngineError(f"{path} is damaged: {_AGAIN}") from error


def read_engine(engine: Path) -> tuple[Sidecar, bytes]:
    """The engine's bytes, those that its sidecar names. Raises EngineError for anything else."""
    sidecar = read_sidecar(engine)
    data = read_file(engine, "engine", EngineError, remedy=_AGAIN)
    if hashlib.sha256(data).hexdigest() != sidecar.engine_sha256:
        raise EngineError(f"{engine} is not the engine that its sidecar names: damaged or replaced, build it again")
    return sidecar, data
