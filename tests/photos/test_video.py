"""Videos: read and written with their timing and sound, people followed, hair steady, damage named."""

from __future__ import annotations

import json
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

import ohlora
from ohlora.base.types import Rgb
from ohlora.cli.sources import sort_sources
from ohlora.errors import EngineError, ImageError, InvalidInputError
from ohlora.io import video
from ohlora.io.animation import write_animation
from ohlora.io.images import read_image
from ohlora.io.video import change_video, expected_frames, is_video, list_videos
from ohlora.photos.face_alignment import Frame
from ohlora.photos.heads import FaceRules, PhotoReader
from ohlora.photos.video import Smoothing, VideoHair, between, overlap, recolor_video
from tests.support.command_line import rows, summary

EXAMPLE = Path(ohlora.__file__).parent / "examples" / "astronaut.jpg"
OMBRE = ohlora.Ombre(0.5, 0.8, 0.3)


@pytest.fixture(scope="module")
def demo() -> Iterator[ohlora.Renderer]:
    with ohlora.Renderer(threads=1) as renderer:
        yield renderer


def moving(frames: int, size: tuple[int, int] = (320, 240)) -> list[Rgb]:
    """The example's portrait, drifting to the right over a plain wall."""
    portrait = cv2.resize(read_image(EXAMPLE), (180, 180), interpolation=cv2.INTER_AREA)
    pictures = []
    for number in range(frames):
        picture = np.full((size[1], size[0], 3), (110, 120, 130), np.uint8)
        picture[30:210, 20 + 3 * number : 200 + 3 * number] = portrait
        pictures.append(picture)
    return pictures


def write(
    path: Path,
    pictures: list[Rgb],
    *,
    codec: str = "libx264",
    sound: str | None = None,
    rate: int = 25,
    times: list[int] | None = None,
) -> Path:
    """A video file; times: of each frame, in 1/1000 s."""
    with av.open(str(path), "w") as container:
        video = container.add_stream(codec, rate=rate, options={"crf": "12"})
        video.width, video.height, video.pix_fmt = pictures[0].shape[1], pictures[0].shape[0], "yuv420p"
        if times is not None:
            video.codec_context.time_base = Fraction(1, 1000)
        audio = None if sound is None else container.add_stream(sound, rate=48000)
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[number], Fraction(1, 1000)
            container.mux(video.encode(frame))
        container.mux(video.encode(None))
        if audio is not None:
            tone = np.sin(np.arange(1024) / 9).astype(np.float32)[None]
            for number in range(rate * len(pictures) // 10):
                block = av.AudioFrame.from_ndarray(np.repeat(tone, 2, 0), format="fltp", layout="stereo")
                block.sample_rate, block.pts = 48000, number * 1024
                container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    return path


def read(path: Path) -> tuple[list[Rgb], list[float], list[bytes]]:
    """Frames, their times in seconds, and the sound's packets."""
    with av.open(str(path)) as container:
        streams = [container.streams.video[0], *container.streams.audio]
        frames, times, sound = [], [], []
        for packet in container.demux(streams):
            if packet.stream.type == "audio":
                sound += [bytes(packet)] if packet.size else []
            else:
                for frame in packet.decode():
                    frames.append(frame.to_ndarray(format="rgb24"))
                    times.append(float(frame.pts * frame.time_base))
    return frames, times, sound


# --- files -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "codec", "sound"),
    [
        ("a.mp4", "libx264", "aac"),
        ("a.mov", "libx264", "aac"),
        ("a.mkv", "libx264", None),
        ("a.webm", "libvpx", "libopus"),
    ],
)
def test_frames_size_timing_and_sound_are_kept(tmp_path: Path, name: str, codec: str, sound: str | None) -> None:
    source = write(tmp_path / name, moving(12), codec=codec, sound=sound)
    (tmp_path / "out").mkdir()
    targets = [tmp_path / "out" / name, tmp_path / "out" / f"second{source.suffix}"]
    facts = change_video(source, targets, lambda rgb: [rgb, 255 - rgb])
    assert (facts.frames, facts.width, facts.height, facts.fps) == (12, 320, 240, 25)
    before, times, packets = read(source)
    for target, inverted in zip(targets, (False, True), strict=True):
        after, its_times, its_packets = read(target)
        assert its_times == pytest.approx(times, abs=2e-3)
        assert its_packets == packets
        assert bool(packets) == (sound is not None)
        for one, other in zip(before, after, strict=True):
            assert other.shape == one.shape
            wanted = 255 - one if inverted else one
            # VP8 and x264 at this quality; a wrong colour matrix or range would be 10 levels off.
            assert np.abs(wanted.astype(int) - other).mean() < 2.5
    # WebM's header says how long the longer stream is, which here is the sound.
    assert 12 <= expected_frames(source) <= 16


def test_variable_frame_rate_stays(tmp_path: Path) -> None:
    wanted = [0, 40, 80, 200, 240, 500, 520]
    source = write(tmp_path / "a.mkv", moving(7), times=wanted)
    change_video(source, [tmp_path / "b.mkv"], lambda rgb: [rgb])
    assert read(tmp_path / "b.mkv")[1] == pytest.approx([value / 1000 for value in wanted], abs=2e-3)


def test_same_video_same_bytes(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mp4", moving(6), sound="aac")
    for name in ("b.mp4", "c.mp4"):
        change_video(source, [tmp_path / name], lambda rgb: [rgb])
    assert (tmp_path / "b.mp4").read_bytes() == (tmp_path / "c.mp4").read_bytes()


def test_gif_keeps_its_delays(tmp_path: Path) -> None:
    pictures = [Image.fromarray(picture) for picture in moving(4)]
    delays = [50, 200, 80, 120]
    pictures[0].save(tmp_path / "a.gif", save_all=True, append_images=pictures[1:], duration=delays, loop=0)
    facts = change_video(tmp_path / "a.gif", [tmp_path / "b.gif"], lambda rgb: [rgb])
    assert facts.frames == 4
    with Image.open(tmp_path / "b.gif") as image:
        found = []
        for number in range(image.n_frames):
            image.seek(number)
            found.append(image.info["duration"])
        assert (found, image.info["loop"], image.size) == (delays, 0, (320, 240))


@pytest.mark.parametrize("damage", ["text", "empty", "cut", "sound only", "missing"])
def test_damaged_videos_give_one_error_and_no_file(tmp_path: Path, damage: str) -> None:
    source = tmp_path / "a.mkv"
    if damage == "text":
        source.write_text("no video" * 100)
    elif damage == "empty":
        source.touch()
    elif damage == "cut":
        source = tmp_path / "a.mp4"
        data = write(source, moving(40)).read_bytes()
        source.write_bytes(data[: len(data) // 2])
    elif damage == "sound only":
        with av.open(str(source), "w") as container:
            audio = container.add_stream("aac", rate=48000)
            block = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
            block.sample_rate = 48000
            container.mux(audio.encode(block))
            container.mux(audio.encode(None))
    target = tmp_path / "out" / source.name
    target.parent.mkdir()
    with pytest.raises(ImageError, match=rf"cannot read .*{source.name}"):
        change_video(source, [target], lambda rgb: [rgb])
    assert not list(target.parent.iterdir())


def test_truncated_file_with_its_header_first(tmp_path: Path) -> None:
    whole = write(tmp_path / "a.mp4", [*moving(40)] * 2)
    change_video(whole, [tmp_path / "fast.mp4"], lambda rgb: [rgb])  # written with the header in front
    data = (tmp_path / "fast.mp4").read_bytes()
    (tmp_path / "cut.mp4").write_bytes(data[: len(data) // 2])
    with pytest.raises(ImageError, match=r"cannot read .*cut\.mp4"):
        change_video(tmp_path / "cut.mp4", [tmp_path / "out.mp4"], lambda rgb: [rgb])
    assert not (tmp_path / "out.mp4").exists()


def test_limits(tmp_path: Path) -> None:
    source = write(tmp_path / "a.mp4", moving(2))
    with pytest.raises(ImageError, match="more than the limit of 1,000"):
        change_video(source, [tmp_path / "b.mp4"], lambda rgb: [rgb], max_pixels=1000)
    with pytest.raises(InvalidInputError, match=r"a\.txt"):
        change_video(tmp_path / "a.txt", [tmp_path / "b.txt"], lambda rgb: [rgb])
    with pytest.raises(InvalidInputError, match="quality"):
        change_video(source, [tmp_path / "b.mp4"], lambda rgb: [rgb], quality=0)


@pytest.mark.parametrize("name", ["a.gif", "a.mp4"])
def test_an_error_of_the_engine_is_not_the_files(tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    write_animation(source, moving(2), fps=10, format=source.suffix[1:])

    def fail(rgb: NDArray[np.uint8]) -> list[NDArray[np.uint8]]:
        raise EngineError("the engine refused its input")

    with pytest.raises(EngineError, match="refused its input"):
        change_video(source, [tmp_path / f"dyed-{name}"], fail)
    assert [path.name for path in tmp_path.iterdir()] == [name]


def test_sources_are_sorted_out(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip, picture, folder = tmp_path / "c.mp4", tmp_path / "p.png", tmp_path / "folder"
    clip.touch()
    cv2.imwrite(str(picture), np.zeros((8, 8, 3), np.uint8))
    (folder / "deep").mkdir(parents=True)
    (folder / "v.mov").touch()
    (folder / "deep" / "w.webm").touch()
    assert sort_sources([clip], False) == ([], [clip])
    assert sort_sources([folder], False) == ([], [folder / "v.mov"])
    assert list_videos([folder], True) == [folder / "deep" / "w.webm", folder / "v.mov"]
    with pytest.raises(InvalidInputError, match="video among pictures"):
        sort_sources([clip, picture], False)
    cv2.imwrite(str(folder / "p.png"), np.zeros((8, 8, 3), np.uint8))
    assert sort_sources([folder], False) == ([folder / "p.png"], [])
    assert "1 videos among the pictures are left out" in capsys.readouterr().err
    still = tmp_path / "still.gif"
    Image.new("RGB", (8, 8)).save(still)
    assert not is_video(still)
    with pytest.raises(InvalidInputError, match="nowhere"):
        sort_sources([tmp_path / "nowhere"], False)


# --- people ----------------------------------------------------------------------------------------------------------


def test_overlap_and_between() -> None:
    box = np.array([0, 0, 10, 10], np.float32)
    assert overlap(box, box) == 1
    assert overlap(box, box + np.array([5, 0, 5, 0], np.float32)) == pytest.approx(1 / 3)
    assert overlap(box, box + 20) == 0
    start, end = Frame((0.0, 0.0), (1.0, 0.0), 100.0, 100.0), Frame((10.0, 0.0), (0.0, 1.0), 121.0, 121.0)
    half = between(start, end, 0.5)
    assert half.centre == (5, 0)
    assert half.tilt == pytest.approx(45)
    assert half.width == pytest.approx(110)
    assert between(start, end, 0.0).centre == end.centre
    jump = Frame((80.0, 0.0), (1.0, 0.0), 100.0, 100.0)
    assert between(start, jump, 0.9) is jump


@pytest.mark.parametrize("options", [{"past": 1.0}, {"past": -0.1}, {"past": float("nan")}, {"every": 0}])
def test_smoothing_out_of_range(options: dict[str, Any]) -> None:
    with pytest.raises(InvalidInputError, match=r"smoothing: (past|every) must be"):
        Smoothing(**options)


def covers(found: Any, shape: tuple[int, int]) -> NDArray[np.float32]:
    from ohlora.bench.studies.photographs import on_picture

    return on_picture(found, shape)


def test_hair_follows_the_head(demo: ohlora.Renderer) -> None:
    hair = VideoHair(demo.hair_engine)
    pictures = moving(12)
    centres = []
    for picture in pictures:
        cover = covers(hair.find(picture), (240, 320))
        centres.append(np.nonzero(cover > 0.5)[1].mean())
    assert (hair.frames, hair.with_faces, hair.most_faces) == (12, 12, 1)
    # 3 pixels a frame; smoothing lags behind by a constant and does not blur it away.
    assert (centres[-1] - centres[3]) / 8 == pytest.approx(3, abs=0.4)
    still = covers(PhotoReader(demo.hair_engine).find(pictures[-1]).heads, (240, 320))
    both, either = ((cover > 0.5) & (still > 0.5)).sum(), ((cover > 0.5) | (still > 0.5)).sum()
    assert both / either > 0.8


def test_smoothing_takes_flicker_out(demo: ohlora.Renderer) -> None:
    rng = np.random.default_rng(0)
    still = moving(1)[0]
    noisy = [np.clip(still + rng.normal(0, 14, still.shape), 0, 255).astype(np.uint8) for _ in range(8)]
    flicker = []
    for past in (0.0, 0.8):
        hair = VideoHair(demo.hair_engine, smoothing=Smoothing(past))
        maps = [covers(hair.find(picture), (240, 320)) for picture in noisy]
        flicker.append(np.abs(np.diff(maps[3:], axis=0)).mean())
    assert flicker[1] < 0.6 * flicker[0]


def test_a_cut_forgets_everybody(demo: ohlora.Renderer) -> None:
    hair = VideoHair(demo.hair_engine)
    for picture in moving(3):
        assert hair.find(picture)
    assert hair.find(np.full((240, 320, 3), 250, np.uint8)) == ()
    assert hair.find(moving(1)[0])


def test_a_face_hidden_for_a_moment_keeps_its_place(demo: ohlora.Renderer) -> None:
    hair = VideoHair(demo.hair_engine)
    pictures = moving(6)
    for picture in pictures[:3]:
        hair.find(picture)
    hidden = pictures[3].copy()
    hidden[90:150, 95:150] = 60  # the face, not the hair around it
    assert hair.find(hidden)
    assert hair.with_faces == 4


def test_video_without_a_face(tmp_path: Path, demo: ohlora.Renderer) -> None:
    source = write(tmp_path / "a.mp4", [np.full((120, 160, 3), 90, np.uint8)] * 5)
    target = tmp_path / "b.mp4"
    with pytest.raises(ImageError, match="no face found in any of 5 frames"):
        recolor_video(source, [(target, OMBRE)], demo.hair_engine)
    assert not target.exists()
    result = recolor_video(source, [(target, OMBRE)], demo.hair_engine, rules=FaceRules(no_face="keep"))
    assert (result.video.frames, result.with_faces) == (5, 0)
    assert target.exists()


# --- the command -----------------------------------------------------------------------------------------------------


def test_command_dyes_a_clip_and_resumes(tmp_path: Path) -> None:
    source = write(tmp_path / "clip.mp4", moving(8), sound="aac")
    out = tmp_path / "out"
    done = summary("recolor", source, "--out", out, "--color", "0.1,0.6", "--ombre-height", 0.9)
    assert (done["videos"], done["written"], done["failed"], done["frames"]) == (2, 2, 0, 8)
    before, _, sound = read(source)
    made = {path.name: path.read_bytes() for path in out.glob("*.mp4")}
    assert set(made) == {"clip_0000.mp4", "clip_0001.mp4"}
    after, _, its_sound = read(out / "clip_0001.mp4")
    assert its_sound == sound
    changed = np.abs(np.array(before).astype(int) - np.array(after)).max(3) > 25
    assert (changed.mean((1, 2)) > 0.004).all(), "every frame is dyed"
    assert changed.mean() < 0.3
    row = rows(out)[1]
    assert (row["frames"], row["frames_with_faces"], row["faces"], row["source"]) == (8, 8, 1, "clip.mp4")
    (out / "clip_0000.mp4").unlink()
    again = summary("recolor", source, "--out", out, "--color", "0.1,0.6", "--ombre-height", 0.9)
    assert (again["written"], again["already_there"]) == (1, 1)
    assert {path.name: path.read_bytes() for path in out.glob("*.mp4")} == made


def test_command_names_a_damaged_clip(tmp_path: Path) -> None:
    folder = tmp_path / "clips"
    folder.mkdir()
    write(folder / "good.mp4", moving(3))
    (folder / "bad.mp4").write_bytes(b"nothing" * 50)
    done = summary("recolor", folder, "--out", tmp_path / "out", status=1)
    assert (done["written"], done["failed"]) == (1, 1)
    assert "bad.mp4" in done["failures"][0]
    assert [json.loads(line)["source"] for line in (tmp_path / "out" / "metadata.jsonl").open()] == ["good.mp4"]
    assert not list((tmp_path / "out").glob(".ohlora-tmp*"))


def test_a_clip_without_a_decoder_fails_alone(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    write(tmp_path / "in" / "good.mp4", moving(3))
    data = (tmp_path / "in" / "good.mp4").read_bytes()
    (tmp_path / "in" / "bad.mp4").write_bytes(data.replace(b"avc1", b"\x01vc1", 2))
    report = summary("recolor", tmp_path / "in", "--no-face", "keep", "--out", tmp_path / "out", status=1)
    assert (report["written"], report["failed"]) == (1, 1)
    assert "bad.mp4" in report["failures"][0]
    assert "cannot read" in report["failures"][0]


def test_file_names_with_colons(tmp_path: Path) -> None:
    source = write(tmp_path / "12:30.mp4", moving(3))
    facts = change_video(source, [tmp_path / "10:00.mp4"], lambda image: [image])
    assert facts.frames == expected_frames(tmp_path / "10:00.mp4") == 3


def test_a_list_of_other_files_is_no_video(tmp_path: Path) -> None:
    write(tmp_path / "secret.mp4", moving(2))
    (tmp_path / "list.mp4").write_text("ffconcat version 1.0\nfile secret.mp4\n")
    with pytest.raises(ImageError, match=r"list\.mp4: its content is not MP4"):
        change_video(tmp_path / "list.mp4", [tmp_path / "out.mp4"], lambda image: [image])
    assert not (tmp_path / "out.mp4").exists()


def test_color_tags_without_a_name_are_left_out() -> None:
    class Frame:
        @property
        def color_trc(self) -> int:
            raise ValueError("9 is not a valid ColorTrc")

    assert video._named(Frame(), "color_trc") == 2
