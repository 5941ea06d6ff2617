"""Shared fixtures.

The reference data of seeded weights are in tests/golden. Reference faces and published tables live outside the
repository; tests that need them skip without them.
"""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from tests.support.direction_tables import write_directions

# CUDA kernels run in Numba's simulator, which is chosen when Numba is imported. OHLORA_TEST_GPU=1 takes the device.
if os.environ.get("OHLORA_TEST_GPU") != "1":
    os.environ["NUMBA_ENABLE_CUDASIM"] = "1"

# What a shell starts in the background ignores Ctrl-C, and so do its children: some tests send it to theirs on purpose.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


GOLDEN = Path(__file__).resolve().parent / "golden"
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def golden() -> Path:
    """Folder of the reference data that are part of the repository: numbers of seeded weights, no faces."""
    return GOLDEN


@pytest.fixture(scope="session")
def shared() -> Path:
    """Folder of reference faces, what was made from them, and published tables; not part of the repository."""
    if not (SHARED / "golden").is_dir():
        pytest.skip("needs reference faces or published tables (../shared), which are not part of the repository")
    return SHARED


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A bundle with a small random generator of the documented family (64 px, no label) and the demo's student."""
    torch = pytest.importorskip("torch")
    from ohlora.export.bundle.builder import build_bundle
    from ohlora.training import checkpoints
    from ohlora.training.nets.stylegan import Generator, GeneratorConfig

    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(0)
    generator = Generator(GeneratorConfig(resolution=64, channel_base=512, channel_max=32))
    checkpoints.save(generator.eval(), folder / "g.safetensors", "stylegan")
    directions = folder / "directions"
    write_directions(directions)
    bundle = build_bundle(
        folder / "tiny",
        generator=folder / "g.safetensors",
        kind="stylegan",
        hair="demo",
        directions=directions,
        name="tiny",
        license="none",
        provenance="random weights",
    )
    return bundle.path


@pytest.fixture(scope="session")
def photo_bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small photographic bundle (64 px, random weights), as `ohlora bundle get photo` makes it."""
    pytest.importorskip("torch")
    from ohlora.bundle.photo.install import get_photo
    from tests.support.random_faces import small_recipe

    folder = tmp_path_factory.mktemp("photographic")
    recipe, wheel = small_recipe(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OHLORA_DATA_DIR", str(folder / "data"))
        return get_photo("photo", wheel=wheel, recipe=recipe).bundle.path
