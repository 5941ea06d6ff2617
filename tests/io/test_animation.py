"""Animations show the frames that went in, at the speed that was asked, with the same bytes each time."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np
import pytest
from PIL import Image

from ohlora.base.values import Expression, Ombre
from ohlora.errors import InvalidInputError, OutputError
from ohlora.io import animation
from ohlora.io.animation import write_animation
from ohlora.io.video_encoder import Codec
from ohlora.render.curves import CURVES, curve_looks
from ohlora.render.edits import LOOK_SETS, named_looks

FORMATS = ("gif", "webp", "mp4")
# The documented curves, frame by frame, as printed in the document: color, height, gradient; eyes, mouth, pose.
DOCUMENTED = {
    "gif40": [
        (0.025 * x, 0.1 + 0.01 * x, 0.05 + 0.015 * x, eyes, 1.2 - 0.06 * x, pose)
        for x in range(40)
        for eyes, pose in [(-1.2 + 0.12 * x, 0.6 - 0.09 * x) if x < 20 else (1.2 - 0.12 * (x - 20), -1.2)]
    ],
    "window80": [
        (0.0125 * x, 0.1 + 0.005 * x, 0.05 + 0.0075 * x, eyes, 1.2 - 0.03 * x, pose)
        for x in range(80)
        for eyes, pose in [(-1.2 + 0.06 * x, 0.6 - 0.045 * x) if x < 40 else (1.2 - 0.06 * (x - 40), -1.2)]
    ],
}
ROOT = Path(__file__).resolve().parents[2]


def moving(count: int, height: int = 48, width: int = 64) -> np.ndarray:
    """A soft gradient that drifts through colours, uint8 [count, height, width, 3]."""
    y, x = np.mgrid[0:height, 0:width]
    t = np.arange(count)[:, None, None]
    channels = (x * 200 // width + 5 * t, y * 200 // height + 3 * t, 120 + 4 * t + 0 * x)
    return np.stack([np.clip(c, 0, 255) for c in channels], -1).astype(np.uint8)


def bt709(planes: np.ndarray) -> np.ndarray:
    """yuv420p of limited range, planes stacked as [H * 3 / 2, W], to uint8 RGB [H, W, 3], by the standard."""
    height, width = planes.shape[0] * 2 // 3, planes.shape[1]
    u, v = planes[height:].reshape(2, height // 2, width // 2).repeat(2, 1).repeat(2, 2) / 224 - 128 / 224
    y = (planes[:height] - 16.0) / 219
    rgb = (y + 1.5748 * v, y - 0.1873 * u - 0.4681 * v, y + 1.8556 * u)
    return (np.stack(rgb, -1).clip(0, 1) * 255).round().astype(np.uint8)


def decode(path: Path) -> np.ndarray:
    """All frames, uint8 [N, H, W, 3]."""
    if path.suffix == ".mp4":
        with av.open(str(path)) as container:
            return np.stack([bt709(frame.to_ndarray()) for frame in container.decode(video=0)])
    with Image.open(path) as image:
        shown = []
        for index in range(image.n_frames):
            image.seek(index)
            shown.append(np.asarray(image.convert("RGB")))
        return np.stack(shown)


@pytest.mark.parametrize("format", FORMATS)
def test_frames_come_back(tmp_path: Path, format: str) -> None:
    path, frames = tmp_path / f"a.{format}", moving(12)
    assert write_animation(path, iter(frames), fps=20, format=format) == 12
    shown = decode(path)
    assert shown.shape == frames.shape
    assert np.abs(shown.astype(int) - frames).mean() < 3
    assert [entry.name for entry in tmp_path.iterdir()] == [path.name]


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("height", "width"), [(48, 64), (256, 144), (96, 130), (256, 256)])
def test_every_run_gives_equal_bytes(tmp_path: Path, format: str, height: int, width: int) -> None:
    # Sizes at which x264 varied with its default settings, and the usual one.
    files = set()
    for _ in range(4):
        write_animation(tmp_path / "a", moving(20, height, width), fps=20, format=format)
        files.add((tmp_path / "a").read_bytes())
    assert len(files) == 1


@pytest.mark.parametrize(("format", "tolerance"), [("gif", 1), ("webp", 6), ("mp4", 6)])
def test_saturated_colours_survive(tmp_path: Path, format: str, tolerance: int) -> None:
    # Dye is saturated. A video decoded with another colour matrix than it was made with is off by 20 and
    # more.
    colours = [(220, 30, 30), (30, 220, 30), (30, 30, 220), (230, 220, 20), (20, 200, 220)]
    frames = [np.full((32, 32, 3), colour, np.uint8) for colour in colours]
    path = tmp_path / f"a.{format}"
    write_animation(path, frames, fps=10, format=format)
    shown = decode(path)[:, 8:24, 8:24].mean(axis=(1, 2))
    assert np.abs(shown - colours).max() <= tolerance


def test_mp4_says_its_colour_space(tmp_path: Path) -> None:
    write_animation(tmp_path / "a.mp4", moving(3), fps=10, format="mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        context = container.streams.video[0].codec_context
        assert (context.colorspace, context.color_primaries, context.color_trc, context.color_range) == (
            1,
            1,
            1,
            1,
        )
        assert context.pix_fmt == "yuv420p"


def test_a_dyed_portrait_keeps_its_colours_in_a_gif(tmp_path: Path, shared: Path) -> None:
    folder = shared / "golden" / "ombre"
    with (
        Image.open(folder / "ftv2_000001_rgb256.png") as rgb,
        Image.open(folder / "ftv2_000001_hair224.png") as mask,
    ):
        face = np.asarray(rgb.convert("RGB")).astype(np.float32)
        hair = np.asarray(mask.convert("L").resize((256, 256))).astype(np.float32)[..., None] / 255
    hues = np.float32([[255, 0, 0], [0, 255, 0], [0, 128, 255], [255, 0, 200]])
    frames = np.uint8(face * (1 - 0.5 * hair) + hues[:, None, None] * 0.5 * hair)
    write_animation(tmp_path / "a.gif", frames, fps=20, format="gif")
    error = (decode(tmp_path / "a.gif").astype(float) - frames)[:, hair[..., 0] > 0.5]
    assert 10 * np.log10(255**2 / (error**2).mean()) > 33  # one palette for all frames gives about 29


@pytest.mark.parametrize("format", FORMATS)
@pytest.mark.parametrize(("height", "width"), [(1, 1), (33, 47), (64, 61)])
def test_odd_sizes(tmp_path: Path, format: str, height: int, width: int) -> None:
    frames, path = moving(3, height, width), tmp_path / f"a.{format}"
    write_animation(path, frames, fps=10, format=format)
    shown = decode(path)
    even = format == "mp4"
    assert shown.shape == (3, height + (height % 2 if even else 0), width + (width % 2 if even else 0), 3)
    assert np.abs(shown[:, :height, :width].astype(int) - frames).mean() < 4


@pytest.mark.parametrize(("fps", "milliseconds"), [(20, 50), (50, 20), (30, 30), (24, 40), (1, 1000), (0.01, 100_000)])
def test_gif_delays_are_whole_hundredths(tmp_path: Path, fps: float, milliseconds: int) -> None:
    write_animation(tmp_path / "a.gif", moving(3), fps=fps, format="gif")
    with Image.open(tmp_path / "a.gif") as image:
        assert image.info["duration"] == milliseconds


@pytest.mark.parametrize("fps", [60, 29.97, 20, 0.5])
def test_mp4_and_webp_keep_the_frame_rate(tmp_path: Path, fps: float) -> None:
    write_animation(tmp_path / "a.mp4", moving(4), fps=fps, format="mp4")
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert float(container.streams.video[0].average_rate) == pytest.approx(fps, rel=1e-4)
    write_animation(tmp_path / "a.webp", moving(4), fps=fps, format="webp")
    with Image.open(tmp_path / "a.webp") as image:
        durations = []
        for index in range(4):
            image.seek(index)
            image.load()
            durations.append(image.info["duration"])
    assert sum(durations) == pytest.approx(4000 / fps, abs=1)


@pytest.mark.parametrize(("format", "once"), [("gif", None), ("webp", 1)])
def test_loop(tmp_path: Path, format: str, once: int | None) -> None:
    for loop, stored in ((True, 0), (False, once)):
        write_animation(tmp_path / "a", moving(3), fps=10, format=format, loop=loop)
        with Image.open(tmp_path / "a") as image:
            assert image.info.get("loop") == stored


@pytest.mark.parametrize("format", FORMATS)
def test_one_frame_is_enough_and_none_is_not(tmp_path: Path, format: str) -> None:
    assert write_animation(tmp_path / f"a.{format}", moving(1), fps=10, format=format) == 1
    assert decode(tmp_path / f"a.{format}").shape[0] == 1
    with pytest.raises(InvalidInputError, match="at least one frame"):
        write_animation(tmp_path / "none", [], fps=10, format=format)
    assert not (tmp_path / "none").exists()


def test_quality_has_an_effect(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (4, 64, 64, 3), np.uint8)
    for format in ("webp", "mp4"):
        sizes = []
        for quality in (20, 60, 95):
            write_animation(tmp_path / "a", noise, fps=10, format=format, quality=quality)
            sizes.append((tmp_path / "a").stat().st_size)
        assert sizes == sorted(set(sizes))


@pytest.mark.parametrize("codec", animation.H264_CODECS, ids=lambda codec: codec.name)
def test_every_codec_of_the_table_works(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, codec: Codec) -> None:
    monkeypatch.setattr(animation, "H264_CODECS", (codec,))
    try:
        write_animation(tmp_path / "a.mp4", moving(5), fps=20, format="mp4")
    except OutputError as error:
        assert codec.name != "mpeg4"  # FFmpeg's own, in every build
        pytest.skip(str(error))
    assert np.abs(decode(tmp_path / "a.mp4").astype(int) - moving(5)).mean() < 4
    before = (tmp_path / "a.mp4").read_bytes()
    write_animation(tmp_path / "a.mp4", moving(5), fps=20, format="mp4")
    assert (tmp_path / "a.mp4").read_bytes() == before


def test_no_codec_at_all_is_one_clear_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(animation, "H264_CODECS", (Codec("not-a-codec", lambda quality: {}),))
    with pytest.raises(OutputError, match="none of the video encoders not-a-codec: use another format, such as gif"):
        write_animation(tmp_path / "a.mp4", moving(2), fps=20, format="mp4")
    assert list(tmp_path.iterdir()) == []


def test_mp4_streams(tmp_path: Path) -> None:
    alive = peak = 0

    class Counted(np.ndarray):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def source() -> Iterator[np.ndarray]:
        nonlocal alive, peak
        for frame in moving(200):
            alive += 1
            peak = max(peak, alive)
            yield frame.copy().view(Counted)

    assert write_animation(tmp_path / "a.mp4", source(), fps=20, format="mp4") == 200
    assert peak <= 5


@pytest.mark.parametrize("format", FORMATS)
def test_a_failing_source_leaves_the_old_file(tmp_path: Path, format: str) -> None:
    def source() -> Iterator[np.ndarray]:
        yield from moving(3)
        raise RuntimeError("engine stopped")

    (tmp_path / "a").write_bytes(b"old")
    with pytest.raises(RuntimeError, match="engine stopped"):
        write_animation(tmp_path / "a", source(), fps=10, format=format)
    assert (tmp_path / "a").read_bytes() == b"old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


@pytest.mark.parametrize("format", FORMATS)
def test_frames_that_do_not_fit_are_refused(tmp_path: Path, format: str) -> None:
    good = moving(1)[0]
    with pytest.raises(InvalidInputError, match="frame 1 has 64 x 47 pixels, the first 64 x 48"):
        write_animation(tmp_path / "a", [good, good[:-1]], fps=10, format=format)
    with pytest.raises(InvalidInputError, match=r"frame 0 is float64 \[48, 64, 3\]"):
        write_animation(tmp_path / "a", [good / 255], fps=10, format=format)
    assert list(tmp_path.iterdir()) == []


def test_wrong_requests_are_refused(tmp_path: Path) -> None:
    for format, fps in (
        ("gif", 51),
        ("gif", 60),
        ("mp4", 0),
        ("mp4", -1),
        ("webp", 61),
        ("mp4", float("nan")),
    ):
        with pytest.raises(InvalidInputError, match=rf"fps of a {format} animation must be in \[0.01, (50|60)\]"):
            write_animation(tmp_path / "a", moving(2), fps=fps, format=format)
    with pytest.raises(InvalidInputError, match="'avi': choose gif, webp or mp4"):
        write_animation(tmp_path / "a", moving(2), fps=10, format="avi")
    with pytest.raises(InvalidInputError, match="quality must be in"):
        write_animation(tmp_path / "a", moving(2), fps=10, format="mp4", quality=0)
    with pytest.raises(InvalidInputError, match="webp stores at most 16383 a side"):
        write_animation(tmp_path / "a", np.zeros((1, 1, 16384, 3), np.uint8), fps=10, format="webp")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("format", ["gif", "webp"])
def test_formats_held_in_memory_have_a_limit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    small = dataclasses.replace(animation._FORMATS[format], max_pixels=48 * 64 * 5)
    monkeypatch.setitem(animation._FORMATS, format, small)
    assert write_animation(tmp_path / "a", moving(5), fps=10, format=format) == 5
    with pytest.raises(InvalidInputError, match=rf"more than 5 frames of 64 x 48 pixels .* {format}: use mp4"):
        write_animation(tmp_path / "b", moving(6), fps=10, format=format)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a"]


@pytest.mark.skipif(sys.platform == "win32", reason="needs file size limits")
@pytest.mark.parametrize("format", FORMATS)
def test_a_disk_that_fills_up_is_one_output_error(tmp_path: Path, format: str) -> None:
    script = (
        "import resource, sys, numpy as np\n"
        "from ohlora.errors import OutputError\n"
        "from ohlora.io.animation import write_animation\n"
        "frames = np.random.default_rng(0).integers(0, 256, (6, 96, 96, 3), np.uint8)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))\n"
        "try: write_animation(sys.argv[1], frames, fps=10, format=sys.argv[2])\n"
        "except OutputError as error: print(error)\n"
    )
    path = tmp_path / f"a.{format}"
    command = [sys.executable, "-c", script, str(path), format]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.stderr == ""
    assert done.stdout.strip() == f"cannot write {path}: File too large"
    assert list(tmp_path.iterdir()) == []


# --- curves -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", sorted(DOCUMENTED))
def test_documented_curves_frame_by_frame(name: str) -> None:
    looks = curve_looks(name, expressions=True)
    assert len(looks) == len(DOCUMENTED[name])
    for look, (color, height, grad_height, *strengths) in zip(looks, DOCUMENTED[name], strict=True):
        assert look.ombre == Ombre(color, height, grad_height)
        assert look.expression == Expression(*strengths)
    assert [look.ombre for look in curve_looks(name, expressions=False)] == [look.ombre for look in looks]
    assert {look.expression for look in curve_looks(name, expressions=False)} == {Expression()}
    assert {look.ombre for look in curve_looks(name, expressions=True, dyed=False)} == {None}


def test_documented_values_worked_out_by_hand() -> None:
    gif, window = (curve_looks(name, expressions=True) for name in ("gif40", "window80"))
    hand = {0: (-1.2, 1.2, 0.6), 10: (0.0, 0.6, -0.3), 19: (1.08, 0.06, -1.11), 20: (1.2, 0.0, -1.2)}
    hand |= {30: (0.0, -0.6, -1.2), 39: (-1.08, -1.14, -1.2)}
    for x, strengths in hand.items():
        assert dataclasses.astuple(gif[x].expression) == pytest.approx(strengths, abs=1e-12)
        assert dataclasses.astuple(window[2 * x].expression) == pytest.approx(strengths, abs=1e-12)
    assert dataclasses.astuple(gif[39].ombre) == pytest.approx((0.975, 0.49, 0.635))
    assert dataclasses.astuple(window[79].ombre) == pytest.approx((0.9875, 0.495, 0.6425))


def test_the_sweep_moves_one_property_after_the_other() -> None:
    looks = curve_looks("sweep60", expressions=True)
    assert {look.ombre for look in looks} == {None}
    eyes, mouth, pose = np.array([dataclasses.astuple(look.expression) for look in looks]).T
    for values, part, first, last in ((eyes, 0, -1.2, 1.2), (mouth, 1, -1.8, 1.8), (pose, 2, -1.8, 0.6)):
        assert values[20 * part : 20 * part + 20] == pytest.approx(np.linspace(first, last, 20), abs=1e-12)
        assert not np.delete(values, slice(20 * part, 20 * part + 20)).any()


def test_live_curves_take_frames_seed_and_target() -> None:
    target = Expression(-1.15, -1.5, -1.65)
    looks = curve_looks("live", expressions=True, frames=400, seed=3, target=target)
    assert looks == curve_looks("live", expressions=True, frames=400, seed=3, target=target)
    assert looks != curve_looks("live", expressions=True, frames=400, seed=4, target=target)
    assert sum(look.expression == target for look in looks) == 11
    # The dye goes round in 360 frames and again.
    assert [look.ombre for look in looks[360:]] == [look.ombre for look in looks[:40]]
    assert [look.ombre for look in looks[:360]] == [x.ombre for x in curve_looks("product360", expressions=True)]
    assert {look.ombre for look in curve_looks("live-v3", expressions=True)} == {None}
    for options in ({"frames": 300}, {"target": target}):
        with pytest.raises(InvalidInputError, match=r"'gif40' has 40 frames that are fixed: .* to live or live-v3"):
            curve_looks("gif40", expressions=True, **options)
    for frames in (0, 1_000_001):
        with pytest.raises(InvalidInputError, match=r"must be in \[1, 1,000,000\]"):
            curve_looks("live", expressions=False, frames=frames)
    with pytest.raises(InvalidInputError, match=r"gif40 \(40 frames, 20 fps\); .*live \(360 frames, 30 fps\)"):
        curve_looks("nope", expressions=True)


@pytest.mark.parametrize("name", sorted(CURVES))
def test_every_curve_fits_a_gif_at_its_own_rate(tmp_path: Path, name: str) -> None:
    write_animation(tmp_path / "a.gif", moving(3), fps=CURVES[name].fps, format="gif")
    with Image.open(tmp_path / "a.gif") as image:
        # 50 ms is documented; 30 fps is 33 ms, stored in hundredths of a second.
        assert image.info["duration"] == {20.0: 50, 30.0: 30}[CURVES[name].fps]


def test_still_pictures_come_in_the_documented_order() -> None:
    looks = named_looks("still50")
    assert len(looks) == 50
    for m, mouth in enumerate((-1.8, -0.9, 0.0, 0.9, 1.8)):
        for e, eyes in enumerate((-1.2, 1.2)):
            for p, pose in enumerate((-1.8, -1.2, -0.6, 0.0, 0.6)):
                index = 10 * m + 5 * e + p
                assert looks[index].expression == Expression(eyes, mouth, pose)
                assert looks[index].ombre == Ombre(index / 50, 0.4, 0.6)
    with pytest.raises(InvalidInputError, match=r"unknown set of looks 'x': choose still50 \(50 looks\)"):
        named_looks("x")
    assert list(LOOK_SETS) == ["still50"]
