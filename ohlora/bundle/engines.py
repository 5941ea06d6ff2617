"""The networks of a bundle, opened as engines and compared with what the manifest says of them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, TypeAlias

from ohlora.base.types import Backend, HairInput, PrecisionChoice
from ohlora.bundle.documented_hair import documented_finder, documented_side
from ohlora.bundle.folder import BundleFolder
from ohlora.engines import Engine, arithmetic, open_engine
from ohlora.engines.model_file import ModelFile, read_model_file
from ohlora.engines.selftest import Probe, load_probe
from ohlora.errors import BundleError, EngineError, InvalidInputError

if TYPE_CHECKING:
    from ohlora.engines.batches import BatchEngine

Role: TypeAlias = Literal["hair", "parsing", "mapping", "synthesis", "mapping_end"]
Shapes: TypeAlias = Mapping[str, tuple[str, tuple[int, ...]]]  # tensor -> dtype, shape of a row

# Of the probe's pixels, at reduced precision. The engines' own gate is made for grey levels, where an error of a few
# units is small; class ids are right or wrong.
CLASSES_DIFFERENT = 0.02


class _Network(NamedTuple):
    """probe: none of a network that differs from the one in the file. precision: what its preset was measured in."""

    file: str
    probe: str | None
    shapes: Shapes
    precision: str = "fp32"


class BundleEngines(BundleFolder):
    """A bundle whose networks can be opened.

    backend, threads: as for `engines.open_engine`. precision: 'fp32', 'bf16', or 'auto' for what the network's preset
    was measured in (`engines.arithmetic`). All raise BundleError without the network, EngineError when it cannot run
    here or fails its self-test.
    """

    def hair_engine(
        self,
        backend: Backend = "auto",
        precision: PrecisionChoice = "auto",
        threads: int | None = None,
        input: HairInput | None = None,
    ) -> Engine:
        """image uint8 [N, s, s, 3] RGB -> hair float32 [N, s, s] in [0, 1]; s = hair_part().input_size.

        input: in place of the bundle's own; the images of the documented one are larger (`documented_side`), and it
        computes in fp32.
        """
        return self._engine("hair", backend, precision, threads, input)

    def hair_model(self, input: HairInput | None = None) -> tuple[Path | ModelFile, int]:
        """The hair finder's ONNX file, or what is made of it for the documented input, and the side of its images.

        input: in place of the bundle's own.
        """
        part = self.hair_part()
        file = self.file(part.file)
        if (input or part.input) == "resized":
            return file, part.input_size
        return documented_finder(read_model_file(file), part.input_size), documented_side(part.input_size)

    def parsing_engine(
        self, backend: Backend = "auto", precision: PrecisionChoice = "auto", threads: int | None = None
    ) -> Engine:
        """image uint8 [N, s, s, 3] RGB -> parsing uint8 [N, s, s], indices into parsing_part().classes."""
        engine = self._engine("parsing", backend, precision, threads)
        different = engine.selftest["probe"]["parsing"]["share"]
        if different > CLASSES_DIFFERENT:
            engine.close()
            raise EngineError(
                f"{self.parsing_part().file} gives {different:.1%} of the probe's pixels another class "
                f"({engine.backend}, {engine.precision}): use precision fp32"
            )
        return engine

    def mapping_engine(self, backend: Backend = "auto", threads: int | None = None) -> Engine:
        """z [N, z] and label [N, L] (absent when L = 0) -> w [N, w] float32, for split mappings mapping_split1
        [N, w + split_size] too. A hundredth of the work, it stays fp32.
        """
        return self._engine("mapping", backend, "fp32", threads)

    def synthesis_engine(
        self,
        backend: Backend = "auto",
        precision: PrecisionChoice = "auto",
        threads: int | None = None,
        *,
        noise: int | None = None,
    ) -> Engine:
        """wp float32 [N, layers, w] -> image uint8 [N, R, R, 3] RGB.

        noise: seed of another draw of the frozen noise; None: as it is. Raises InvalidInputError for a generator
        without frozen noise.
        """
        engine = self._engine("synthesis", backend, precision, threads)
        if noise is None:
            return engine
        # Its probe tells what the stored noise draws: the arithmetic passed it, and the planes alone are others.
        engine.close()
        network = self._network("synthesis")
        drawn = open_engine(
            self._with_noise(network, noise),
            backend=engine.backend,
            precision=arithmetic(precision, network.precision, backend),
            threads=threads,
        )
        self._require_shapes(drawn, network)
        return drawn

    def generator_engines(
        self, backend: Backend = "auto", precision: PrecisionChoice = "auto", threads: int | None = None
    ) -> tuple[Engine, Engine]:
        """(mapping, synthesis)."""
        mapping = self.mapping_engine(backend, threads)
        try:
            return mapping, self.synthesis_engine(backend, precision, threads)
        except Exception:
            mapping.close()
            raise

    def mapping_end_engine(self, backend: Backend = "auto", threads: int | None = None) -> Engine:
        """mapping_split1 float32 [N, w + split_size] -> w [N, w], mapping_split2 [N, 2 w]: the last layers of a split
        mapping. Only directions need it (`Directions.needs_mapping_end`), so it is opened by itself.
        """
        return self._engine("mapping_end", backend, "fp32", threads)

    def device_engine(
        self,
        role: Literal["synthesis", "hair"],
        *,
        noise: int | None = None,
        input: HairInput | None = None,
        **options: Any,
    ) -> BatchEngine:
        """A network on a CUDA device; options of `engines.gpu.device.open_device_engine`. Shapes as of its CPU form.

        noise: as of `synthesis_engine`. input: as of `hair_engine`.
        """
        from ohlora.engines.gpu.device import open_device_engine

        network = self._network(role, input)
        if network.probe is None:
            _require_fp32(options["precision"])
        if options.get("engines") is not None:
            if noise is not None:
                raise InvalidInputError(f"built engines have the noise that is fixed: leave out noise {noise}")
            if network.probe is None:
                raise InvalidInputError(
                    f"{options['engines']} holds TensorRT engines, whose hair finder is not fed as documented: leave "
                    "--engines or --compat out"
                )
        if noise is None:
            engine = open_device_engine(self._model(role, network, input), probe=self._probe(role, network), **options)
        else:
            engine = open_device_engine(self._with_noise(network, noise), **options)
        self._require_shapes(engine, network)
        return engine

    def _with_noise(self, network: _Network, seed: int) -> ModelFile:
        from ohlora.bundle.photo.noise import drawn_noise

        path = self.file(network.file)
        try:
            data = drawn_noise(path.read_bytes(), seed)
        except EngineError as error:
            raise InvalidInputError(f"bundle '{self.name}': {error}") from error
        return ModelFile(path, data, hashlib.sha256(data).hexdigest())

    def _engine(
        self,
        role: Role,
        backend: Backend,
        precision: PrecisionChoice,
        threads: int | None,
        input: HairInput | None = None,
    ) -> Engine:
        network = self._network(role, input)
        chosen = arithmetic(precision, network.precision, backend)
        if network.probe is None:
            _require_fp32(chosen)
        engine = open_engine(
            self._model(role, network, input),
            backend=backend,
            precision=chosen,
            threads=threads,
            probe=self._probe(role, network),
        )
        self._require_shapes(engine, network)
        return engine

    def _model(self, role: Role, network: _Network, input: HairInput | None) -> Path | ModelFile:
        return self.hair_model(input)[0] if role == "hair" else self.file(network.file)

    def _probe(self, role: Role, network: _Network) -> Probe | None:
        return None if network.probe is None else load_probe(self.file(network.probe), role)

    def _network(self, role: Role, input: HairInput | None = None) -> _Network:
        if role == "hair":
            hair = self.hair_part()
            size = hair.input_size
            documented = (input or hair.input) == "documented"
            side = documented_side(size) if documented else size
            shapes: Shapes = {"image": ("uint8", (side, side, 3)), "hair": ("float32", (size, size))}
            if documented:  # the probe was made of smaller images, and presets were measured on them
                return _Network(hair.file, None, shapes)
            return _Network(hair.file, hair.probe, shapes, hair.precision)
        if role == "parsing":
            parsing = self.parsing_part()
            size = parsing.input_size
            shapes = {"image": ("uint8", (size, size, 3)), "parsing": ("uint8", (size, size))}
            return _Network(parsing.file, parsing.probe, shapes)
        part = self.generator_part()
        w, split1 = ("float32", (part.w_size,)), ("float32", (part.w_size + part.split_size,))
        if role == "synthesis":
            side = part.resolution
            shapes = {"wp": ("float32", (part.num_layers, part.w_size)), "image": ("uint8", (side, side, 3))}
            return _Network(part.synthesis, part.probe, shapes, part.precision)
        if role == "mapping":
            shapes = {"z": ("float32", (part.z_size,)), "w": w}
            shapes |= {"label": ("float32", (part.label_size,))} if part.label_size else {}
            shapes |= {"mapping_split1": split1} if part.split_size else {}
            return _Network(part.mapping, part.probe, shapes)
        if part.mapping_end is None:
            raise BundleError(
                f"bundle '{self.name}' has no mapping_end network: its mapping has one branch, or it was built by an "
                "earlier version; build it again with `ohlora bundle build --generator ...`"
            )
        shapes = {"mapping_split1": split1, "w": w, "mapping_split2": ("float32", (2 * part.w_size,))}
        return _Network(part.mapping_end, part.probe, shapes)

    def _require_shapes(self, engine: Engine, network: _Network) -> None:
        tensors = {tensor.name: (tensor.dtype, tensor.row_shape) for tensor in engine.spec.tensors}
        if tensors != network.shapes:
            engine.close()
            raise BundleError(
                f"bundle '{self.name}': {network.file} has tensors {tensors} but the manifest declares "
                f"{dict(network.shapes)}: the bundle was built wrongly, build it again"
            )


def _require_fp32(precision: str) -> None:
    """Raises EngineError: the documented finder has no probe that would show what another precision does to it."""
    if precision != "fp32":
        raise EngineError(f"the documented hair finder computes in fp32, not {precision}: leave --precision at auto")
