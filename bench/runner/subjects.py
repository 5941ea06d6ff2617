"""What is measured: a bundle at one or more presets, with the PyTorch modules it came from as the baseline."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ohlora.base.version import __version__
from ohlora.bundle import Bundle
from ohlora.engines import backend_report
from ohlora.engines.cache import cache_root
from ohlora.errors import OhloraError

if TYPE_CHECKING:
    from ohlora.bench.baselines.documented import DocumentedWay

AS_GIVEN, FULL_SIZE = "as given", "full size"
PRESET_NAMES = ("exact", "balanced", "fast")
JUDGED_SEEDS = 24  # faces that a preset is gated on here; `ohlora export` takes 200
QUICK_ITEMS = (1, 10, 100, 500)
Report = Callable[[str], None]


@dataclass
class Subject:
    """bundles: by preset; the first is the one that other suites take.

    documented: the modules as documented, None without PyTorch or where the bundle's networks cannot be turned back;
    `why` says so.
    """

    name: str
    bundles: dict[str, Bundle]
    documented: DocumentedWay | None
    why: str = ""
    opened: ExitStack = field(default_factory=ExitStack)

    @property
    def bundle(self) -> Bundle:
        return next(iter(self.bundles.values()))

    def close(self) -> None:
        self.opened.close()


@dataclass(frozen=True)
class Options:
    """What all suites are told. subject: what networks are run. quick: fewer forms and smaller jobs, for a look."""

    subject: Subject
    quick: bool = False

    @property
    def items(self) -> tuple[int, ...]:
        """Sizes of the jobs whose time and memory are compared."""
        return QUICK_ITEMS if self.quick else (*QUICK_ITEMS, 5_000, 50_000)


def bundle_subject(
    bundle: str, presets: Sequence[str] = (), report: Report = print, *, modules: bool = True
) -> Subject:
    """A bundle as it is, or at `presets` (which need the train extra). modules: with the eager PyTorch baseline."""
    opened = Bundle.open(bundle)
    documented, why = None, ""
    try:
        documented = documented_of(bundle) if modules else None
    except ImportError as error:
        why = f"no eager PyTorch baseline: the train extra is not installed ({error})"
    except OhloraError as error:
        why = f"no eager PyTorch baseline: {error}"
    subject = Subject(opened.name, {AS_GIVEN: opened}, documented, why)
    if presets:
        folder = _work_folder(subject, sorted(opened.engine_hashes.items()), opened.name)
        subject.bundles = at_presets(opened, presets, folder, report)
    return subject


def full_size_subject(presets: Sequence[str], report: Report = print) -> Subject:
    """The full-size generator (`full_size`) with the demo's student. Built once, then taken from the cache folder.

    Raises ImportError without the train extra.
    """
    from ohlora.bench.baselines.documented import DocumentedWay
    from ohlora.bench.baselines.networks import documented_student, documented_upsampling
    from ohlora.bench.runner.full_size import full_size_generator
    from ohlora.export.bundle.builder import build_bundle
    from ohlora.training import checkpoints
    from ohlora.training.nets.stylegan import Generator
    from ohlora.training.unbundle.student import student_from_bundle

    demo = Bundle.open("demo")
    subject = Subject(FULL_SIZE, {}, None)
    folder = _work_folder(subject, f"full size 2 {demo.generator_identity} {sorted(demo.engine_hashes.items())}")
    weights = folder / "generator.safetensors"
    if not weights.exists():
        report("full-size generator: its last block is fitted to the demo's portraits")
        checkpoints.save(full_size_generator(), weights, "stylegan-celeba256")
    module = checkpoints.load_as(Generator, "stylegan-celeba256", weights)
    student = documented_student(student_from_bundle("demo"))
    subject.documented = DocumentedWay(documented_upsampling(module).eval(), student.eval())
    built = folder / "float32"
    if not (built / "bundle.json").exists():
        build_bundle(
            built, generator=weights, kind="stylegan-celeba256", hair="demo", directions=None, name="full-size",
            license="Apache-2.0", provenance="the demo's generator inside one of the published size", overwrite=True,
            report=report,
        )  # fmt: skip
    subject.bundles = at_presets(Bundle.open(built), presets, folder, report)
    return subject


def documented_of(bundle: str) -> DocumentedWay:
    """The modules of a bundle in the documented form. Raises ImportError without PyTorch, OhloraError where a network
    is not one that can be turned back into a module.
    """
    import torch  # noqa: F401 - the reason is clearer than that of a module that needs it

    from ohlora.bench.baselines.documented import DocumentedWay
    from ohlora.bench.baselines.networks import documented_student, documented_upsampling
    from ohlora.training.unbundle.generator import generator_from_bundle
    from ohlora.training.unbundle.student import student_from_bundle

    generator = documented_upsampling(generator_from_bundle(bundle))
    return DocumentedWay(generator.eval(), documented_student(student_from_bundle(bundle)).eval())


def at_presets(bundle: Bundle, presets: Sequence[str], folder: Path, report: Report) -> dict[str, Bundle]:
    """`bundle` at each preset, from `folder` where it was made before."""
    from ohlora.export.bundle.preset import preset_bundle
    from ohlora.export.precision.presets import preset_named

    made: dict[str, Bundle] = {}
    for name in presets:
        out = folder / name
        if not (out / "bundle.json").exists():
            report(f"preset {name}:")
            preset_bundle(bundle.path, preset_named(name), out, seeds=JUDGED_SEEDS, overwrite=True, report=report)
        made[name] = Bundle.open(out)
    return made


def _work_folder(subject: Subject, *identity: Any) -> Path:
    """Where what is built is kept: for this package and this machine's engines; a temporary one without a cache."""
    root = cache_root()
    if root is None:
        temporary = tempfile.TemporaryDirectory(prefix="ohlora-bench-")
        return Path(subject.opened.enter_context(temporary))
    engines = [(one.name, one.version, one.bf16) for one in backend_report(["openvino", "onnxruntime"])]
    key = hashlib.sha256(repr((__version__, engines, identity)).encode()).hexdigest()[:16]
    folder = root.parent / "bench" / key
    folder.mkdir(parents=True, exist_ok=True)
    return folder
