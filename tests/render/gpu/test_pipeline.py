"""Rendering on a CUDA device, in Numba's simulator: the pictures are the host's, whatever the batches."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from typer.testing import CliRunner

pytest.importorskip("onnx", reason="the train extra (onnx) makes the models these tests run")

from ohlora.base.installation import install_command
from ohlora.base.values import Z_SIZE, Expression, Face, Ombre
from ohlora.bundle import Bundle
from ohlora.bundle.manifest import Framing
from ohlora.bundle.write import new_bundle
from ohlora.cli import app
from ohlora.engines import open_engine
from ohlora.engines.selftest import Probe, save_probe
from ohlora.errors import EngineError, InvalidInputError, OutputError
from ohlora.io.images import encode_image, read_image
from ohlora.kernels.gpu import arrays as cuda_arrays
from ohlora.kernels.gpu.arrays import CudaUnavailableError
from ohlora.kernels.ombre import apply_ombre
from ohlora.render.gpu.chain import runs
from ohlora.render.gpu.devices import DeviceSetting, chosen_devices
from ohlora.render.gpu.pipeline import run_on_device
from ohlora.render.job import Look, OutputFormat, RenderJob
from ohlora.render.pipeline import Results
from ohlora.render.plan import PortraitPlan
from ohlora.render.renderer import Renderer
from ohlora.render.sinks import FolderSink
from tests.support import small_bundle
from tests.support.simulated_device import Devices
from tests.support.small_models import LABEL, RESOLUTION, SIZE, enlarging_hair_model

DYES = (Ombre(0.5, 1.0, 0.5), None, Ombre(0.1, 0.4, 0.0))
# The kernel's interpolation and OpenCV's differ by some 1e-4. Where a map is 1 throughout, either may come out a bit
# below 255, and truncation makes a level of it; these maps are nearly all 0 or 1.
DIFFERENT = 0.01


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    staging = small_bundle.stage(tmp_path_factory.mktemp("staging"), Z_SIZE, gain=40.0)
    generator = small_bundle.GENERATOR.model_copy(update={"z_size": Z_SIZE, "w_size": Z_SIZE})
    return small_bundle.write(tmp_path_factory.mktemp("made") / "bundle", staging, generator=generator)


@pytest.fixture
def devices(monkeypatch: pytest.MonkeyPatch) -> Devices:
    found = Devices()
    monkeypatch.setattr("ohlora.engines.gpu.device.open_device_engine", found.open)
    return found


def faces(count: int) -> list[Face]:
    rng = np.random.default_rng(1)
    return [
        Face(
            rng.standard_normal(Z_SIZE).astype(np.float32),
            rng.standard_normal(LABEL).astype(np.float32),
            name=f"f{i}",
            group="hhh",
        )
        for i in range(count)
    ]


def job(count: int, dyes: tuple[Ombre | None, ...] = DYES, expressions: int = 1) -> RenderJob:
    looks = [Look(Expression(0.2 * e, 0.0, 0.0), dye) for e in range(expressions) for dye in dyes]
    return RenderJob(faces(count), tuple(looks))


def expected(bundle: Bundle, asked: RenderJob) -> list[np.ndarray]:
    """By the host's own functions, a portrait at a time, with the bundle's small hair finder."""
    undyed = RenderJob(asked.faces, tuple(Look(look.expression, None) for look in asked.looks))
    pictures = []
    with Renderer(bundle, "onnxruntime") as renderer:
        finder = renderer.hair_engine
        for item in renderer.stream(undyed):
            ombre = asked.looks[item.item % len(asked.looks)].ombre
            if ombre is None:
                pictures.append(item.image)
                continue
            small = cv2.resize(item.image, (SIZE, SIZE), interpolation=cv2.INTER_CUBIC)
            hair = finder(image=small[None])["hair"]
            pictures.append(apply_ombre(item.image[None], hair, ombre.color, ombre.height, ombre.grad_height)[0])
    return pictures


def rendered(bundle: Bundle, asked: RenderJob, bucket: int) -> tuple[dict[int, np.ndarray], list[dict[str, Any]]]:
    pictures, facts = {}, []
    with Renderer(bundle, "onnxruntime") as renderer:
        pipeline = renderer.device_pipeline(asked, 0, DeviceSetting(bucket=bucket))
        for batch in pipeline.finished(PortraitPlan(asked).units(range(len(asked)))):
            for image, output, fact, dyed in zip(batch.images, batch.outputs, batch.facts, batch.dyed, strict=True):
                pictures[output.item] = image.copy()
                facts.append({"item": output.item, "dyed": dyed, **fact})
            batch.release()
        pipeline.close()
    return pictures, facts


def test_pictures_are_the_hosts(bundle: Bundle, devices: Devices) -> None:
    asked = job(3, expressions=2)
    wanted = expected(bundle, asked)
    made, facts = rendered(bundle, asked, bucket=2)
    assert list(made) == sorted(made) == list(range(18)), "in order, each once"
    values = np.stack([made[item] for item in range(18)]).astype(int) - np.stack(wanted)
    assert abs(values).max() <= 1
    assert (values != 0).mean() <= DIFFERENT
    undyed = np.stack([made[item] for item in range(1, 18, 3)])
    assert np.array_equal(undyed, np.stack(wanted[1::3])), "what is not dyed is exactly the portrait"
    changed = [item for item in range(18) if not np.array_equal(made[item], made[item // 3 * 3 + 1])]
    assert len(changed) > 6, "dyes are seen"
    assert {fact["dyed"] for fact in facts if fact["item"] % 3 == 1} == {False}
    assert all(0 < fact["hair_share"] < 1 for fact in facts)
    assert all(engine.closed for engine in devices.opened)


def test_pictures_do_not_depend_on_the_batch(bundle: Bundle, devices: Devices) -> None:
    asked = job(3)
    one, facts = rendered(bundle, asked, bucket=1)
    for bucket in (2, 5):
        other, other_facts = rendered(bundle, asked, bucket)
        assert all(np.array_equal(one[item], other[item]) for item in range(len(asked)))
        assert facts == other_facts
    synthesis = devices.opened[-2].runner
    assert synthesis.bucket == 5
    assert synthesis.launches == 1, "three portraits are one launch, nine outputs are two batches of it"


def test_a_job_without_dyes_opens_no_hair_finder(bundle: Bundle, devices: Devices) -> None:
    asked = job(3, (None,))
    made, facts = rendered(bundle, asked, bucket=2)
    assert len(devices.opened) == 1
    assert all(np.array_equal(made[item], image) for item, image in enumerate(expected(bundle, asked)))
    assert facts == [{"item": item, "dyed": False} for item in range(3)]


def test_no_room_halves_the_batch(bundle: Bundle, devices: Devices, caplog: pytest.LogCaptureFixture) -> None:
    asked = job(3)
    wanted, _ = rendered(bundle, asked, bucket=1)
    devices.room = 2
    made, _ = rendered(bundle, asked, bucket=8)
    assert [record.getMessage() for record in caplog.records] == [
        "the device has no room for batches of 8: going on with 4",
        "the device has no room for batches of 4: going on with 2",
    ]
    assert all(np.array_equal(wanted[item], made[item]) for item in range(len(asked)))
    devices.room = 0
    with pytest.raises(EngineError, match="no room for a single portrait: CUDA: cudaMalloc failed: out of memory"):
        rendered(bundle, asked, bucket=2)


def test_room_that_is_gone_half_way(
    bundle: Bundle, devices: Devices, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    from ohlora.render.gpu.chain import DeviceChain

    asked = job(5)
    wanted, _ = rendered(bundle, asked, bucket=1)
    start, calls = DeviceChain.start, []

    def crowded(chain: DeviceChain, wp: np.ndarray) -> None:
        calls.append(chain.bucket)
        if len(calls) == 2:
            raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")
        start(chain, wp)

    monkeypatch.setattr(DeviceChain, "start", crowded)
    made, _ = rendered(bundle, asked, bucket=2)
    assert calls == [2, 2, 1, 1, 1]
    assert "going on with 1" in caplog.text
    assert list(made) == list(range(len(asked)))
    assert all(np.array_equal(wanted[item], made[item]) for item in range(len(asked)))


def test_other_errors_are_raised(bundle: Bundle, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: Any, **options: Any) -> None:
        raise EngineError("hair.onnx fails its self-test")

    monkeypatch.setattr("ohlora.engines.gpu.device.open_device_engine", refuse)
    with pytest.raises(EngineError, match="fails its self-test"):
        rendered(bundle, job(1), bucket=2)


def test_portraits_that_lie_together_are_copied_together() -> None:
    assert runs([0, 1, 2, 3]) == [(0, 0, 4)]
    assert runs([2, 2, 3, 5, 6, 1]) == [(0, 2, 1), (1, 2, 2), (3, 5, 2), (5, 1, 1)]
    assert runs([]) == []


class Noted:
    """A record in memory."""

    def __init__(self) -> None:
        self.rows: dict[int, dict[str, Any]] = {}
        self.failed: dict[int, str] = {}

    def record(self, item: int, row: dict[str, Any]) -> None:
        self.rows[item] = row

    def record_failure(self, item: int, message: str) -> None:
        self.failed[item] = message


def test_workers_write_from_the_ring(bundle: Bundle, devices: Devices) -> None:
    asked, record = job(7), Noted()
    wanted, _ = rendered(bundle, asked, bucket=1)
    kept = {}

    class Keeping:
        def store(
            self, image: np.ndarray, output: Any, facts: dict[str, Any], dyed: bool, data: bytes | None = None
        ) -> dict[str, Any]:
            kept[output.item] = image.copy()
            return {"dyed": dyed}

    with Renderer(bundle, "onnxruntime") as renderer:
        pipeline = renderer.device_pipeline(asked, 0, DeviceSetting(bucket=2))
        totals = Results(record)
        run_on_device(PortraitPlan(asked).units(range(21)), pipeline, Keeping(), totals, workers=3)
        pipeline.close()
    assert (totals.written, totals.units, totals.failed) == (21, 7, {})
    assert sorted(record.rows) == list(range(21))
    assert all(np.array_equal(kept[item], wanted[item]) for item in range(21)), "no slot is reused too early"


def test_a_full_disk_stops_the_job(bundle: Bundle, devices: Devices) -> None:
    class Full:
        def store(
            self, image: np.ndarray, output: Any, facts: dict[str, Any], dyed: bool, data: bytes | None = None
        ) -> dict[str, Any]:
            raise OutputError("cannot write out/f0.jpg: no space left on the device")

    with Renderer(bundle, "onnxruntime") as renderer:
        pipeline = renderer.device_pipeline(job(40, (None,)), 0, DeviceSetting(bucket=2))
        with pytest.raises(OutputError, match="no space left"):
            run_on_device(
                PortraitPlan(pipeline.latents.job).units(range(40)), pipeline, Full(), Results(Noted()), workers=2
            )
        assert pipeline.runs < 40
        pipeline.close()


class FakeCodec:
    """nvImageCodec's interface, as far as it is used, by OpenCV. damaged: what its files are in place of JPEG."""

    class QualityType:
        QUALITY = 2

    class ChromaSubsampling:
        CSS_420 = 3

    def __init__(self, damaged: bytes | None = None) -> None:
        self.damaged, self.batches = damaged, []

    def EncodeParams(self, *, quality_type: int, quality_value: float, chroma_subsampling: int) -> float:
        assert (quality_type, chroma_subsampling) == (2, 3)
        return quality_value

    def Encoder(self, device_id: int) -> FakeCodec:
        assert device_id == 0
        return self

    def as_images(self, images: list[Any], cuda_stream: int) -> list[np.ndarray]:
        return [image.copy_to_host() for image in images]

    def encode(self, images: list[np.ndarray], codec: str, params: float, cuda_stream: int) -> list[Any]:
        self.batches.append(len(images))
        assert codec == "jpeg"
        return [self.damaged or encode_image(image, "jpeg", int(params)) for image in images]


@pytest.fixture
def codec(monkeypatch: pytest.MonkeyPatch) -> FakeCodec:
    found = FakeCodec()
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", found)
    return found


def command_of(bundle: Bundle, folder: Path, *more: str) -> list[str]:
    z = folder / "z.npz"
    np.savez(z, z=np.stack([face.z for face in faces(5)]), label=np.stack([face.label for face in faces(5)]))
    return ["render", "--bundle", str(bundle.path), "--faces", str(z), "--color", "0.5", "--device", "cuda",
            "--batch", "2", "--out", str(folder / "out"), "--json", *more]  # fmt: skip


def test_pictures_encoded_on_the_device(bundle: Bundle, devices: Devices, codec: FakeCodec, tmp_path: Path) -> None:
    rows = {}
    for encoder in ("cpu", "nvimgcodec"):
        folder = tmp_path / encoder
        folder.mkdir()
        done = CliRunner().invoke(app, command_of(bundle, folder, "--encoder", encoder, "--quality", "80"))
        assert done.exit_code == 0, done.output
        lines = (folder / "out" / "metadata.jsonl").read_text().splitlines()
        rows[encoder] = [json.loads(line) for line in lines]
    assert codec.batches == [1, 2, 2, 1], "the test picture, then batch by batch"
    assert {row.pop("encoder") for row in rows["nvimgcodec"]} == {"nvimgcodec"}
    assert rows["nvimgcodec"] == rows["cpu"], "the fake encodes as the host does: the same pictures, the same rows"


def test_encoders_that_do_not_work(
    bundle: Bundle, devices: Devices, codec: FakeCodec, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(*more: str) -> str:
        return str(CliRunner().invoke(app, command_of(bundle, tmp_path, *more)).exception)

    assert "writes jpeg, not png" in refused("--encoder", "nvimgcodec", "--format", "png")
    assert "unknown encoder 'gpu'" in refused("--encoder", "gpu")
    codec.damaged = b"no picture"
    assert "cannot be read: use --encoder cpu" in refused("--encoder", "nvimgcodec")
    codec.damaged = encode_image(np.zeros((64, 64, 3), np.uint8), "jpeg", 95)
    assert "dB only: use --encoder cpu" in refused("--encoder", "nvimgcodec")
    monkeypatch.setitem(sys.modules, "nvidia.nvimgcodec", None)
    assert "needs nvImageCodec" in refused("--encoder", "nvimgcodec")
    on_the_host = CliRunner().invoke(app, ["render", "--bundle", str(bundle.path), "--encoder", "nvimgcodec"])
    assert "give --device cuda too" in str(on_the_host.exception)


def test_a_renderer_on_a_device(bundle: Bundle, devices: Devices, monkeypatch: pytest.MonkeyPatch) -> None:
    people = faces(2)
    setting = DeviceSetting(bucket=1)
    dyed, short = job(2, DYES[:2], expressions=2), job(2, DYES[:1])
    undyed = RenderJob(people, (Look(Expression(0.2, 0.0, 0.0)), Look(), Look(Expression(0.2, 0.0, 0.0))))
    with Renderer(bundle, "onnxruntime") as host:
        wanted = [rendered.image for rendered in host.stream(undyed)]
    with Renderer(bundle, "onnxruntime", device="cuda", device_setting=setting) as renderer:
        first = list(renderer.stream(dyed))
        opened = len(devices.opened)
        again = list(renderer.stream(short))
        assert len(devices.opened) == opened == 2, "engines are kept between jobs"
        assert [item.item for item in first] == list(range(8)), "in the order of the looks"
        assert all(np.array_equal(a.image, b.image) for a, b in zip(first[::4], again, strict=True))
        assert all(np.array_equal(a.image, b) for a, b in zip(first, expected(bundle, dyed), strict=True) if a.item % 2)
        assert first[0].facts["hair_share"] > 0
        abandoned = renderer.stream(dyed)
        assert next(abandoned).item == 0
        abandoned.close()
        assert len(list(renderer.stream(short))) == 2, "a stream that is left has lost no slot"
        images = [rendered.image for rendered in renderer.stream(undyed)]
        assert all(np.array_equal(a, b) for a, b in zip(images, wanted, strict=True))
        made = renderer.render(people, None, Ombre(0.5, 1.0, 0.5))
        assert np.array_equal(made, np.stack([first[item].image for item in (0, 4)]))
    assert all(engine.closed for engine in devices.opened)
    with pytest.raises(InvalidInputError, match="a Renderer gives arrays, so encoder nvimgcodec has no use"):
        Renderer(bundle, device="cuda", device_setting=DeviceSetting(encoder="nvimgcodec"))
    monkeypatch.setattr("ohlora.render.gpu.devices.device_count", lambda: 2)
    with pytest.raises(InvalidInputError, match="a Renderer takes one device"):
        Renderer(bundle, device="cuda:0,cuda:1")


@pytest.fixture
def no_cuda(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> int:
        raise CudaUnavailableError("no CUDA device can be used (no driver)")

    monkeypatch.setattr("ohlora.render.gpu.devices.device_count", missing)


def test_devices_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ohlora.render.gpu.devices.device_count", lambda: 2)
    wanted = {"cpu": [], "auto": [0], "cuda": [0], "cuda:1": [1], "cuda:1,cuda:0": [1, 0], "cuda:all": [0, 1]}
    assert {text: chosen_devices(text) for text in wanted} == wanted
    for text, words in {
        "cuda:2": "there is no cuda:2: this machine has 2 CUDA devices",
        "gpu": "unknown device 'gpu'",
        "cuda:-1": "unknown device 'cuda:-1'",
        "cuda:0,cuda": "names a device twice",
        "cuda:0,cuda:all": "names a device twice",
    }.items():
        with pytest.raises(InvalidInputError, match=words):
            chosen_devices(text)


@pytest.mark.usefixtures("no_cuda")
def test_auto_falls_back_with_one_line(caplog: pytest.LogCaptureFixture) -> None:
    assert chosen_devices("auto") == []
    assert len(caplog.records) == 1
    assert "rendering on the CPU: no CUDA device can be used (no driver)" in caplog.text
    with pytest.raises(InvalidInputError, match=r"--device cuda:0: no CUDA device can be used .*: use --device cpu"):
        chosen_devices("cuda:0")


def test_a_missing_package_comes_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> int:
        raise CudaUnavailableError("numba-cuda is not installed", extra="gpu")

    monkeypatch.setattr("ohlora.render.gpu.devices.device_count", missing)
    with pytest.raises(InvalidInputError) as refused:
        chosen_devices("cuda")
    command = install_command("gpu")
    assert str(refused.value) == f"--device cuda: numba-cuda is not installed: {command}, or use --device cpu"


def test_the_command(bundle: Bundle, devices: Devices, tmp_path: Path) -> None:
    command = command_of(bundle, tmp_path, "--format", "png")
    done = CliRunner().invoke(app, command)
    assert done.exit_code == 0, done.output
    summary = json.loads(done.output.splitlines()[-1])
    assert (summary["written"], summary["generator_runs"]) == (5, 5)
    rows = [json.loads(line) for line in (tmp_path / "out" / "metadata.jsonl").read_text().splitlines()]
    assert len(rows) == 5
    assert {row["engine"] for row in rows} == {"torch-fp32 on cuda"}
    assert all(0 <= row["hair_share"] <= 1 for row in rows)
    picture = cv2.imread(str(tmp_path / "out" / rows[0]["file_name"]))
    assert picture.shape == (RESOLUTION, RESOLUTION, 3)
    again = CliRunner().invoke(app, command)
    assert json.loads(again.output.splitlines()[-1])["already_there"] == 5
    other = CliRunner().invoke(app, [*command, "--precision", "fp16"])
    assert isinstance(other.exception, InvalidInputError), "other engines, other pictures: another job"


def test_engines_belong_to_a_gpu(bundle: Bundle, tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["render", "--bundle", str(bundle.path), "--engines", str(tmp_path)])
    assert isinstance(done.exception, InvalidInputError)
    assert "give --device cuda too" in str(done.exception)


def test_the_simulator_is_on() -> None:
    assert cuda_arrays.simulated()


def test_portraits_that_are_framed_or_large_are_dyed_by_the_host(
    bundle: Bundle, devices: Devices, tmp_path: Path
) -> None:
    demo = Bundle.open("demo")
    with new_bundle(tmp_path / "framed", start=bundle) as draft:
        draft.take(demo, demo.hair_part().file, demo.hair_part().probe)
        draft.hair = demo.hair_part()
        draft.generator = bundle.generator_part().model_copy(update={"framing": Framing(scale=1.2)})
    framed, asked = Bundle.open(tmp_path / "framed"), job(3)
    with Renderer(framed, "onnxruntime") as host:
        wanted = [item.image for item in host.stream(asked)]
        facts = [item.facts for item in host.stream(asked)]
    with Renderer(framed, "onnxruntime", device="cuda", device_setting=DeviceSetting(bucket=2)) as renderer:
        made = list(renderer.stream(asked))
    assert len(devices.opened) == 1, "no hair finder on the device"
    assert all(np.array_equal(item.image, image) for item, image in zip(made, wanted, strict=True))
    assert [item.facts for item in made] == facts
    with Renderer(framed, "onnxruntime") as renderer:
        pipeline = renderer.device_pipeline(asked, 0, DeviceSetting(bucket=2))
        results = Results(Noted())
        sink = FolderSink(tmp_path / "d", OutputFormat("png"))
        run_on_device(PortraitPlan(asked).units(range(9)), pipeline, sink, results, workers=2)
        pipeline.close()
        assert results.written == 9
        for item, output in enumerate(o for unit in PortraitPlan(asked).units(range(9)) for o in unit.outputs):
            stored = read_image(tmp_path / "d" / output.file_name)
            assert np.array_equal(stored, wanted[item])
        with pytest.raises(InvalidInputError, match=r"dyed by the CPU.*leave it 'cpu'"):
            renderer.device_pipeline(asked, 0, DeviceSetting(encoder="nvimgcodec"))


def test_documented_switches_on_a_device(devices: Devices, tmp_path: Path) -> None:
    """A finder fed larger images, whose maps never reach a hair row: the host's pictures, and `dyed` says so."""
    (tmp_path / "staging").mkdir()
    staging = small_bundle.stage(tmp_path / "staging", Z_SIZE)
    enlarging_hair_model(staging / "hair.onnx", 28, gain=0.5)
    with open_engine(staging / "hair.onnx", backend="onnxruntime") as engine:
        image = np.random.default_rng(0).integers(0, 256, (2, 28, 28, 3), np.uint8)
        save_probe(staging / "hair_probe.safetensors", hair=Probe({"image": image}, engine(image=image)))
    small = small_bundle.write(
        tmp_path / "bundle",
        staging,
        generator=small_bundle.GENERATOR.model_copy(update={"z_size": Z_SIZE, "w_size": Z_SIZE}),
        hair=small_bundle.HAIR.model_copy(update={"input_size": 28}),
    )
    asked = job(2)
    with Renderer(small, "onnxruntime", compat="documented") as renderer:
        host = {item.item: item for item in renderer.stream(asked)}
        made, dyed = {}, []
        pipeline = renderer.device_pipeline(asked, 0, DeviceSetting(bucket=2))
        for batch in pipeline.finished(PortraitPlan(asked).units(range(len(asked)))):
            made.update((output.item, image.copy()) for output, image in zip(batch.outputs, batch.images, strict=True))
            dyed += batch.dyed
            batch.release()
        pipeline.close()
    assert devices.opened[-1].spec.inputs[0].row_shape == (32, 32, 3)
    values = np.stack([made[item] for item in range(6)]).astype(int) - np.stack([host[i].image for i in range(6)])
    assert abs(values).max() <= 1
    changed = [not np.array_equal(made[item], made[item // 3 * 3 + 1]) for item in range(6)]
    assert dyed == changed
    assert any(changed)
