"""Who may import whom, and what the runtime must never load."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Lower layers first. A layer imports from itself and the layers before it.
LAYERS = ("kernels", "ohlora", "training", "export", "bench")
TORCH_FREE = ("kernels", "ohlora")


def modules(layer: str) -> list[Path]:
    links = [ROOT / "ohlora" / name for name in LAYERS]
    return [p for p in sorted((ROOT / layer).rglob("*.py")) if not any(p.is_relative_to(link) for link in links)]


def imports(path: Path, top_level_only: bool) -> Iterator[str]:
    """Names imported; with top_level_only, those that run when the module is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lazy = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for child in ast.walk(node)
    }
    for node in ast.walk(tree):
        if top_level_only and id(node) in lazy:
            continue
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def layer_of(name: str) -> str | None:
    parts = name.split(".")
    if parts[0] != "ohlora":
        return None
    return parts[1] if len(parts) > 1 and parts[1] in LAYERS else "ohlora"


@pytest.mark.parametrize("layer", LAYERS)
def test_imports_go_one_way(layer: str) -> None:
    files = modules(layer)
    assert files, f"no modules in {layer}"
    for path in files:
        # The command line reaches upward, but only inside functions.
        only_top = path.is_relative_to(ROOT / "ohlora" / "cli")
        for name in imports(path, only_top):
            other = layer_of(name)
            if other is not None:
                assert LAYERS.index(other) <= LAYERS.index(layer), f"{path.relative_to(ROOT)} imports {name}"
            assert name.split(".")[0] not in LAYERS[:1] + LAYERS[2:], (
                f"{path.relative_to(ROOT)} imports top-level {name}"
            )


@pytest.mark.parametrize("layer", TORCH_FREE)
def test_runtime_sources_do_not_name_torch(layer: str) -> None:
    # The torch backend is loaded when it is asked for by name, never by 'auto'.
    backend = set((ROOT / "ohlora" / "engines" / "onnx_torch").glob("*.py"))
    for path in sorted(set(modules(layer)) - backend):
        for name in imports(path, top_level_only=False):
            assert name.split(".")[0] not in {"torch", "torchvision", "timm", "lightning"}, f"{path} imports {name}"


def loaded_after(statement: str) -> set[str]:
    code = f"import sys\n{statement}\nprint('\\n'.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=ROOT)
    return set(done.stdout.split())


def test_import_ohlora_is_light() -> None:
    loaded = loaded_after("import ohlora")
    assert not loaded & {"torch", "numpy", "numba", "cv2", "onnxruntime", "openvino"}


def test_rendering_and_recolouring_never_load_torch() -> None:
    loaded = loaded_after(
        "import numpy as np, ohlora\n"
        "with ohlora.Renderer() as r:\n"
        "    r.recolor(np.zeros((1, 64, 64, 3), np.uint8), ohlora.Ombre(0.5))\n"
        "import ohlora.cli.execute, ohlora.cli.render, ohlora.faces, ohlora.render.job_file"
    )
    assert "torch" not in loaded
    assert "ohlora.kernels.ombre" in loaded


def test_command_line_help_loads_no_engine() -> None:
    loaded = loaded_after("import ohlora.cli")
    assert not loaded & {"torch", "numba", "cv2", "onnxruntime", "openvino", "numpy"}


@pytest.mark.parametrize("layer", ["kernels", "export", "training", "bench"])
def test_links_lead_to_the_top_level_folders(layer: str) -> None:
    link = ROOT / "ohlora" / layer
    assert link.is_symlink()
    assert link.resolve() == ROOT / layer
    assert not link.readlink().is_absolute()
