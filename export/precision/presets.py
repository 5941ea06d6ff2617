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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx
from numpy.typing import NDArray

from ohlora.engines import backend_report, open_engine
from ohlora.engines.rows import RowEngine
from ohlora.errors import EngineError, InvalidInputError
from ohlora.export.graphs.passes import subpixel
from ohlora.export.networks.compare import Comparison, Figures
from ohlora.export.precision.int8_plan import Int8Plan, plan_int8
from ohlora.export.precision.quality import mask_quality, picture_quality, psnr, shown

Arrays = dict[str, NDArray[Any]]
# (name, model, arithmetic, plan)
Form = tuple[str, onnx.ModelProto, str, Int8Plan | None]

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
class Preset:
    """Gates of pictures and masks. Plans aim at their PSNR and IoU; where there is none, only float32 may pass."""

    name: str
    pictures: Comparison
    masks: Comparison


PRESETS = {
    preset.name: preset
    for preset in (
        Preset("exact", Comparison({"max_levels": 2}), Comparison({"max_error": 0.002})),
        Preset(
            "balanced",
            Comparison(least={"psnr_mean": 45, "psnr_worst": 42}),
            Comparison(least={"iou": 0.998, "iou_worst": 0.95}),
        ),
        Preset(
            "fast",
            Comparison(least={"psnr_mean": 35, "psnr_worst": 32}),
            Comparison(least={"iou": 0.995, "iou_worst": 0.9}),
        ),
    )
}


def preset_named(name: str) -> Preset:
    """Raises InvalidInputError naming the known ones."""
    if name not in PRESETS:
        raise InvalidInputError(f"there is no preset '{name}': choose {', '.join(PRESETS)}")
    return PRESETS[name]


@dataclass(frozen=True)
class Chosen:
    """model: what the preset stands for. precision: arithmetic that its float part is to run in where it can.

    exact: the float32 network's results, which it was judged by.
    """

    model: onnx.ModelProto
    form: str
    precision: str
    quality: Figures
    plan: Int8Plan | None
    exact: NDArray[Any]

    def to_json(self, preset: Preset) -> dict[str, Any]:
        quality = {name: round(value, 6 if "iou" in self.quality else 5) for name, value in self.quality.items()}
        record: dict[str, Any] = {"preset": preset.name, "form": self.form, "quality": quality}
        return record | ({"int8": self.plan.to_json()} if self.plan and self.form.startswith("int8") else {})


@dataclass(frozen=True)
class Target:
    """A network to be lowered.

    model: float32. inputs: rows it is judged on; `calibration` shares none of them. output: name of the judged one.
    quality(exact, made); gate: of the preset; aims(exact, made): whether a plan may go on.
    """

    name: str
    model: onnx.ModelProto
    inputs: Arrays
    calibration: Arrays
    output: str
    quality: Callable[[NDArray[Any], NDArray[Any]], Figures]
    gate: Comparison
    aims: Callable[[NDArray[Any], NDArray[Any]], bool] | None


def picture_target(model: onnx.ModelProto, inputs: Arrays, calibration: Arrays, preset: Preset) -> Target:
    """A synthesis network: wp -> image."""
    gate = preset.pictures
    aim = gate.least.get("psnr_mean", 0.0)

    def aims(exact: NDArray[Any], made: NDArray[Any]) -> bool:
        found = psnr(exact, made)
        return float(found.mean()) >= aim + MARGIN_DB and float(found.min()) >= aim - 2.5

    return Target("synthesis", model, inputs, calibration, "image", picture_quality, gate, aims if aim else None)


def mask_target(model: onnx.ModelProto, inputs: Arrays, calibration: Arrays, preset: Preset) -> Target:
    """A hair finder: image -> hair."""
    gate = preset.masks
    aim = gate.least.get("iou", 0.0)

    def aims(exact: NDArray[Any], made: NDArray[Any]) -> bool:
        found = mask_quality(exact, made)
        return found["iou"] >= aim + MARGIN_IOU and gate.missed(found) is None

    return Target("hair", model, inputs, calibration, "hair", mask_quality, gate, aims if aim else None)


def has_bf16() -> bool:
    """Whether an engine here computes in bfloat16."""
    return any(status.bf16 for status in backend_report(["openvino"]))


def choose(
    target: Target,
    *,
    precision: str | None = None,
    symmetric: bool = False,
    judged_in_plan: int = 8,
    report: Callable[[str], None] = lambda line: None,
) -> Chosen:
    """The fastest form of the network that passes its gate.

    precision: only this one, "fp32", "bf16" or "int8"; EngineError when it misses the gate.
    symmetric: int8 activations as TensorRT takes them. judged_in_plan: rows that steps of a plan are judged on.
    """
    exact = run_rows(target.model, target.inputs)[target.output]
    last: Figures | None = None
    forms = _forms(target, exact, precision, symmetric, judged_in_plan)
    if len(forms) > 1 and not symmetric:  # symmetric plans run elsewhere: what is faster here says nothing
        forms = _fastest_first(target, forms, report)
    for form, model, arithmetic, plan in forms:
        made = exact if form == "fp32" else run_rows(model, target.inputs, arithmetic)[target.output]
        quality = last = target.quality(exact, made)
        report(f"  {target.name} {form}: {shown(quality)}")
        if target.gate.missed(quality) is None:
            return Chosen(model, form, arithmetic, quality, plan, exact)
    figures = "no form of it could be made" if last is None else f"it reaches {shown(last)}"
    raise EngineError(
        f"{target.name} in {precision or 'any precision'} misses the gate ({target.gate}): {figures}; nothing "
        "was written. Choose a looser preset, or a higher precision"
    )


def _fastest_first(target: Target, forms: Sequence[Form], report: Callable[[str], None]) -> Sequence[Form]:
    """Sorted by what a row takes in the engines that would be used here, measured in turn, times a handicap."""
    few = {name: value[:TIMED_ROWS] for name, value in target.inputs.items()}
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
    report(f"  {target.name} a row: {shown}")
    return [forms[number] for number in order]


def _forms(target: Target, exact: NDArray[Any], precision: str | None, symmetric: bool, judged: int) -> Sequence[Form]:
    """What the network could be, the fastest first by what is known without measuring."""
    bf16 = has_bf16()
    if precision == "bf16" and not bf16:
        raise EngineError("this CPU has no bf16 instructions to measure bf16 with: use fp32 or int8")
    plain = ("fp32", target.model, "fp32", None)
    rounded = ("bf16", target.model, "bf16", None)
    forms: list[Form] = []
    plan = None
    if precision in (None, "int8") and target.aims is not None:
        plan = _plan(target, target.aims, exact, symmetric, judged)
    if plan is not None:
        integer = ("int8", plan.model, "fp32", plan)
        mixed = ("int8+bf16", plan.model, "bf16", plan)
        if precision == "int8" or plan.share >= WORTHWHILE or not bf16:
            forms += [mixed] if bf16 and precision is None and (not symmetric or plan.share < NEARLY_ALL) else []
            forms.append(integer)
        else:
            forms += [rounded, integer]
    if precision is None:
        forms += [rounded] if bf16 and rounded not in forms and target.aims is not None else []
        forms.append(plain)
    elif precision in ("fp32", "bf16"):
        forms = [plain if precision == "fp32" else rounded]
    return forms


def _plan(
    target: Target,
    aims: Callable[[NDArray[Any], NDArray[Any]], bool],
    exact: NDArray[Any],
    symmetric: bool,
    judged: int,
) -> Int8Plan | None:
    few = {name: value[:judged] for name, value in target.inputs.items()}

    def passes(model: onnx.ModelProto) -> bool:
        return aims(exact[:judged], run_rows(model, few)[target.output])

    count = len(next(iter(target.calibration.values())))
    rows = [{name: value[i : i + 1] for name, value in target.calibration.items()} for i in range(count)]
    return plan_int8(subpixel(target.model), rows, passes, symmetric=symmetric)


def run_rows(model: onnx.ModelProto, inputs: Arrays, precision: str = "fp32") -> Arrays:
    """Outputs of the engine that would be used here."""
    temporary = tempfile.TemporaryDirectory(prefix="ohlora-preset-")
    with temporary as folder, _opened(Path(folder) / "model.onnx", model, precision) as engine:
        return engine(**inputs)


def _opened(path: Path, model: onnx.ModelProto, precision: str) -> RowEngine:
    path.write_bytes(model.SerializeToString())
    return open_engine(path, backend="openvino" if precision == "bf16" else "auto", precision=precision)
