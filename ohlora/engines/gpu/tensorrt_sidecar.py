"""What an engine file is, in a JSON file beside it: `NAME.engine`, `NAME.engine.json`. The engine itself stays plain.

Read without TensorRT: whether an engine may be used here is decided before the library is asked.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ohlora.base.atomic import write_json
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


def read_sidecar(engine: Path) -> Sidecar:
    """Raises EngineError when it is missing or damaged."""
    path = sidecar_path(engine)
    try:
        content: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        if content.pop("format") != FORMAT:
            raise ValueError("another format")
        content["spec"] = EngineSpec.from_json(content["spec"])
        content["compute_capabilities"] = tuple(content["compute_capabilities"])
        smallest, opt, largest = map(int, content["batch"])
        content["batch"] = (smallest, opt, largest)
        return Sidecar(**content)
    except OSError as error:
        raise EngineError(f"cannot read {path}: {error.strerror or error}; build the engine again") from error
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise EngineError(f"{path} is damaged: build the engine again (`ohlora export --to tensorrt`)") from error


def read_engine(engine: Path) -> tuple[Sidecar, bytes]:
    """The engine's bytes, those that its sidecar names. Raises EngineError for anything else."""
    sidecar = read_sidecar(engine)
    try:
        data = engine.read_bytes()
    except OSError as error:
        raise EngineError(f"cannot read engine {engine}: {error.strerror or error}") from error
    if hashlib.sha256(data).hexdigest() != sidecar.engine_sha256:
        raise EngineError(f"{engine} is not the engine that its sidecar names: damaged or replaced, build it again")
    return sidecar, data
