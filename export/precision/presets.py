"""Named qualities of a compiled network, each a gate that is measured: exact, balanced, fast.

A network gets the first of its forms, the fastest here first, that passes; one that was asked for by precision and does
not pass fails the export. The forms are an int8 plan (`int8_plan`), bfloat16 arithmetic where the CPU has it, and the
float32 network itself.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import onnx
from numpy.typing import NDArray

from ohlora.engines import backend_report, open_engine
from ohlora.engines.rows import RowEngine
from ohlora.errors import EngineError, InvalidInputError
from ohlora.export.graphs.passes import subpixel
from ohlora.export.precision.int8_plan import Int8Plan, plan_int8
from ohlora.export.precision.quality import MaskQuality, PictureQuality, mask_quality, picture_quality, psnr

Arrays = dict[str, NDArray[Any]]
# (name, model, arithmetic, plan)
Form = tuple[str, onnx.ModelProto, str, Int8Plan | None]
QualityT = TypeVar("QualityT", PictureQuality, MaskQuality)

# An int8 plan that does less of the work than this gains little over bfloat16 of everything.
WORTHWHILE = 0.5
# What remains in float beside a plan that does more than this is not worth the conversions that bfloat16 costs.
NEARLY_ALL = 0.9
# Planning judges few rows, the gate many: plans aim this much higher.
MARGIN_DB, MARGIN_IOU = 0.5, 0.0005
TIMED_ROWS, TIMED_ROUNDS = 8, 5
# A form that rounds more has to be so many times faster: a tie, or noise, shall not cost quality.
HANDICAP = {"fp32": 1.0, "bf16": 1.05, "int8": 1.1, "int8+bf16": 1.1}


@dataclass(frozen=True)
class Gate(Generic[QualityT]):
    """What a result must reach. text: the promise, for messages."""

    text: str
    passed: Callable[[QualityT], bool]


def _decibels(mean: float, worst: float) -> Gate[PictureQuality]:
    return Gate(
        f"PSNR of {mean:g} dB on average and {worst:g} dB at worst",
        lambda q: q.psnr_mean >= mean and q.psnr_worst >= worst,
    )


def _overlap(iou: float, worst: float) -> Gate[MaskQuality]:
    return Gate(f"IoU of {iou:g} over all and {worst:g} at worst", lambda q: q.iou >= iou and q.iou_worst >= worst)


@dataclass(frozen=True)
class Preset:
    """pictures, masks: gates. psnr, iou: what plans aim at; None where nothing but float32 may pass."""

    name: str
    pictures: Gate[PictureQuality]
    masks: Gate[MaskQuality]
    psnr: float | None
    iou: float | None


PRESETS = {
    preset.name: preset
    for preset in (
        Preset(
            "exact",
            Gate("at most 2 grey levels of difference", lambda q: q.max_levels <= 2),
            Gate("at most 0.002 of difference", lambda q: q.max_error <= 0.002),
            None,
            None,
        ),
        Preset("balanced", _decibels(45, 42), _overlap(0.998, 0.95), 45.0, 0.998),
        Preset("fast", _decibels(35, 32), _overlap(0.995, 0.9), 35.0, 0.995),
    )
}


def preset_named(name: str) -> Preset:
    """Raises InvalidInputError naming the known ones."""
    if name not in PRESETS:
        raise InvalidInputError(f"there is no preset '{name}': choose {', '.join(PRESETS)}")
    return PRESETS[name]


@dataclass(frozen=True)
class Chosen(Generic[QualityT]):
    """model: what the preset stands for. precision: arithmetic that its float part is to run in where it can.

    exact: the float32 network's results, which it was judged by. tried: quality of every form, by its name; `form` is
    the chosen one's.
    """

    model: onnx.ModelProto
    form: str
    precision: str
    quality: QualityT
    plan: Int8Plan | None
    exact: NDArray[Any]
    tried: dict[str, dict[str, float]] = field(default_factory=dict)

    def to_json(self, preset: Preset) -> dict[str, Any]:
        record: dict[str, Any] = {"preset": preset.name, "form": self.form, "quality": self.quality.to_json()}
        return record | ({"int8": self.plan.to_json()} if self.plan and self.form.startswith("int8") else {})


@dataclass(frozen=True)
class Subject(Generic[QualityT]):
    """A network to be lowered.

    model: float32. inputs: rows it is judged on; `calibration` shares none of them. output: name of the judged one.
    quality(exact, made); gate: of the preset; aims(exact, made): whether a plan may go on.
    """

    name: str
    model: onnx.ModelProto
    inputs: Arrays
    calibration: Arrays
    output: str
    quality: Callable[[NDArray[Any], NDArray[Any]], QualityT]
    gate: Gate[QualityT]
    aims: Callable[[NDArray[Any], NDArray[Any]], bool] | None


def picture_subject(
    model: onnx.ModelProto, inputs: Arrays, calibration: Arrays, preset: Preset
) -> Subject[PictureQuality]:
    """A synthesis network: wp -> image."""
    aim = preset.psnr

    def aims(exact: NDArray[Any], made: NDArray[Any]) -> bool:
        found = psnr(exact, made)
        assert aim is not None
        return float(found.mean()) >= aim + MARGIN_DB and float(found.min()) >= aim - 2.5

    return Subject(
        "synthesis", model, inputs, calibration, "image", picture_quality, preset.pictures, aims if aim else None
    )


def mask_subject(model: onnx.ModelProto, inputs: Arrays, calibration: Arrays, preset: Preset) -> Subject[MaskQuality]:
    """A hair finder: image -> hair."""
    aim = preset.iou

    def aims(exact: NDArray[Any], made: NDArray[Any]) -> bool:
        assert aim is not None
        found = mask_quality(exact, made)
        return found.iou >= aim + MARGIN_IOU and preset.masks.passed(found)

    return Subject("hair", model, inputs, calibration, "hair", mask_quality, preset.masks, aims if aim else None)


def has_bf16() -> bool:
    """Whether an engine here computes in bfloat16."""
    return any(status.bf16 for status in backend_report(["openvino"]))


def choose(
    subject: Subject[QualityT],
    *,
    precision: str | None = None,
    symmetric: bool = False,
    judged_in_plan: int = 8,
    report: Callable[[str], None] = lambda line: None,
) -> Chosen[QualityT]:
    """The fastest form of the network that passes its gate.

    precision: only this one, "fp32", "bf16" or "int8"; EngineError when it misses the gate.
    symmetric: int8 activations as TensorRT takes them. judged_in_plan: rows that steps of a plan are judged on.
    """
    exact = run_rows(subject.model, subject.inputs)[subject.output]
    tried: dict[str, dict[str, float]] = {}
    last: QualityT | None = None
    forms = _forms(subject, exact, precision, symmetric, judged_in_plan)
    if len(forms) > 1 and not symmetric:  # symmetric plans run elsewhere: what is faster here says nothing
        forms = _fastest_first(subject, forms, report)
    for form, model, arithmetic, plan in forms:
        made = exact if form == "fp32" else run_rows(model, subject.inputs, arithmetic)[subject.output]
        quality = last = subject.quality(exact, made)
        tried[form] = quality.to_json()
        report(f"  {subject.name} {form}: {_shown(quality)}")
        if subject.gate.passed(quality):
            return Chosen(model, form, arithmetic, quality, plan, exact, tried)
    figures = "no form of it could be made" if last is None else f"it reaches {_shown(last)}"
    raise EngineError(
        f"{subject.name} in {precision or 'any precision'} misses the gate ({subject.gate.text}): {figures}; nothing "
        "was written. Choose a looser preset, or a higher precision"
    )


def _fastest_first(subject: Subject[QualityT], forms: Sequence[Form], report: Callable[[str], None]) -> Sequence[Form]:
    """Sorted by what a row takes in the engines that would be used here, measured in turn, times a handicap."""
    few = {name: value[:TIMED_ROWS] for name, value in subject.inputs.items()}
    times: list[list[float]] = [[] for _ in forms]
    with tempfile.TemporaryDirectory(prefix="ohlora-preset-") as folder, ExitStack() as opened:
        engines = [
            opened.enter_context(_opened(Path(folder) / f"{number}.onnx", model, arithmetic))
            for number, (_, model, arithmetic, _) in enumerate(forms)
        ]
        for _ in range(TIMED_ROUNDS + 1):  # the first is to warm up
            for taken, engine in zip(times, engines, strict=True):
                started = time.perf_counter()
                engine(**few)
                taken.append((time.perf_counter() - started) / len(next(iter(few.values()))))
    medians = [statistics.median(taken[1:]) for taken in times]
    order = sorted(range(len(forms)), key=lambda number: medians[number] * HANDICAP[forms[number][0]])
    shown = ", ".join(f"{forms[number][0]} {1e3 * medians[number]:.1f} ms" for number in order)
    report(f"  {subject.name} a row: {shown}")
    return [forms[number] for number in order]


def _forms(
    subject: Subject[QualityT], exact: NDArray[Any], precision: str | None, symmetric: bool, judged: int
) -> Sequence[Form]:
    """What the network could be, the fastest first by what is known without measuring."""
    bf16 = has_bf16()
    if precision == "bf16" and not bf16:
        raise EngineError("this CPU has no bf16 instructions to measure bf16 with: use fp32 or int8")
    plain = ("fp32", subject.model, "fp32", None)
    rounded = ("bf16", subject.model, "bf16", None)
    forms: list[Form] = []
    plan = None
    if precision in (None, "int8") and subject.aims is not None:
        plan = _plan(subject, exact, symmetric, judged)
    if plan is not None:
        integer = ("int8", plan.model, "fp32", plan)
        mixed = ("int8+bf16", plan.model, "bf16", plan)
        if precision == "int8" or plan.share >= WORTHWHILE or not bf16:
            forms += [mixed] if bf16 and precision is None and (not symmetric or plan.share < NEARLY_ALL) else []
            forms.append(integer)
        else:
            forms += [rounded, integer]
    if precision is None:
        forms += [rounded] if bf16 and rounded not in forms and subject.aims is not None else []
        forms.append(plain)
    elif precision in ("fp32", "bf16"):
        forms = [plain if precision == "fp32" else rounded]
    return forms


def _plan(subject: Subject[QualityT], exact: NDArray[Any], symmetric: bool, judged: int) -> Int8Plan | None:
    few = {name: value[:judged] for name, value in subject.inputs.items()}
    aims = subject.aims
    assert aims is not None

    def passes(model: onnx.ModelProto) -> bool:
        return aims(exact[:judged], run_rows(model, few)[subject.output])

    count = len(next(iter(subject.calibration.values())))
    rows = [{name: value[i : i + 1] for name, value in subject.calibration.items()} for i in range(count)]
    return plan_int8(subpixel(subject.model), rows, passes, symmetric=symmetric)


def run_rows(model: onnx.ModelProto, inputs: Arrays, precision: str = "fp32") -> Arrays:
    """Outputs of the engine that would be used here."""
    temporary = tempfile.TemporaryDirectory(prefix="ohlora-preset-")
    with temporary as folder, _opened(Path(folder) / "model.onnx", model, precision) as engine:
        return engine(**inputs)


def _opened(path: Path, model: onnx.ModelProto, precision: str) -> RowEngine:
    path.write_bytes(model.SerializeToString())
    return open_engine(path, backend="openvino" if precision == "bf16" else "auto", precision=precision)


def _shown(quality: PictureQuality | MaskQuality) -> str:
    if isinstance(quality, PictureQuality):
        return (
            f"{quality.psnr_mean:.1f} dB (worst {quality.psnr_worst:.1f}), SSIM {quality.ssim_mean:.4f}, "
            f"at most {quality.max_levels} levels"
        )
    return f"IoU {quality.iou:.4f} (worst {quality.iou_worst:.4f}), at most {quality.max_error:.4f}"
