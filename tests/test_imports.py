"""Who may import whom, how the rooms lie, and what the runtime must never load."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Lowest first, folders and the rooms in them: a module imports from its own room and from those before it, lazily and
# for types too. A room is a folder, or a file that lies beside the folders; one inside another, as engines/gpu, may
# have a place of its own. `ohlora/__init__.py` is the public names: only commands come after it.
ROOMS: dict[str, tuple[str, ...]] = {
    "kernels": ("__init__", "user_folders", "choices", "threads", "gpu", "ombre", "properties"),
    "ohlora": (
        "errors", "base", "io", "engines", "engines/onnx_torch", "engines/gpu", "latents", "bundle", "faces", "photos",
        "render", "scores", "__init__", "cli", "__main__",
    ),
    "training": (
        "__init__", "nets", "weights", "checkpoints", "data", "loop", "teachers", "faces", "students", "directions",
        "unbundle", "gan", "cnn", "finetune", "hairzoo", "sampling", "pages", "pipeline", "vectorfind",
    ),
    "export": (
        "__init__", "formats", "rewrites", "graphs", "networks", "precision", "bundle", "sources", "lowering",
        "tensorrt", "triton", "exporter", "search_engines", "verify",
    ),
    "bench": (
        "__init__", "plugin", "baselines", "runner", "suites", "gpu", "studies", "conftest", "test_engine_bench",
        "test_generator_bench", "test_ombre_bench", "test_properties_bench", "test_suites_bench",
    ),
}  # fmt: skip
FOLDERS = tuple(ROOMS)
LINKED = tuple(folder for folder in FOLDERS if folder != "ohlora")  # imported as ohlora.FOLDER
RUNTIME = ("kernels", "ohlora")
# Graphs in memory and PyTorch are one room's business: all others run compiled files.
TORCH_ROOM = "engines/onnx_torch"
TORCH = {"torch", "onnx", "ml_dtypes", "torchvision", "timm", "lightning", "onnxscript"}
NODE = re.compile(r"""^\s+(?P<name>\w+)\["(?P<label>[^"]+)"\]$""")  # of the picture in docs/architecture.md
# Python files that may lie beside the rooms.
MOST_FILES = {"ohlora": 6, "export": 10, "training": 8, "bench": 8, "tests": 6}


@dataclass(frozen=True)
class Module:
    """One file of the package. folder and room: its place in ROOMS; room is empty where it has none."""

    path: Path
    folder: str
    room: str

    def __str__(self) -> str:
        return self.path.relative_to(ROOT).as_posix()


@cache
def modules() -> dict[str, Module]:
    """Every module by the name it is imported by."""
    links = [ROOT / "ohlora" / name for name in LINKED]
    found = {}
    for folder in FOLDERS:
        for path in sorted((ROOT / folder).rglob("*.py")):
            if any(path.is_relative_to(link) for link in links):
                continue
            parts = path.relative_to(ROOT).with_suffix("").parts
            name = parts[:-1] if parts[-1] == "__init__" else parts
            dotted = ".".join(name if folder == "ohlora" else ("ohlora", *name))
            found[dotted] = Module(path, folder, room_of(folder, "/".join(parts[1:])))
    return found


def room_of(folder: str, inside: str) -> str:
    """The innermost room of ROOMS that a file lies in."""
    holding = [room for room in ROOMS[folder] if inside == room or inside.startswith(f"{room}/")]
    return max(holding, key=len, default="")


@cache
def imports(path: Path, top_level_only: bool = False) -> tuple[str, ...]:
    """Names imported; with top_level_only, those that run when the module is imported."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    lazy = {
        id(child)
        for node in ast.walk(tree)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        or (isinstance(node, ast.If) and "TYPE_CHECKING" in ast.dump(node.test))
        for child in ast.walk(node)
    }
    names: list[str] = []
    for node in ast.walk(tree):
        if top_level_only and id(node) in lazy:
            continue
        if isinstance(node, ast.Import):
            names += (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names += (f"{node.module}.{alias.name}" for alias in node.names)
    return tuple(names)


def imported(name: str) -> str | None:
    """The module of this package that an imported name is, or is in."""
    while name and name not in modules():
        name = name.rpartition(".")[0]
    return name or None


def arrows(module: Module, top_level_only: bool = False) -> Iterator[Module]:
    for name in imports(module.path, top_level_only):
        if (target := imported(name)) is not None:
            yield modules()[target]


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_room_has_a_place(folder: str) -> None:
    homeless = [str(module) for module in modules().values() if module.folder == folder and not module.room]
    assert not homeless, f"give these a place in ROOMS: {', '.join(homeless)}"
    empty = set(ROOMS[folder]) - {module.room for module in modules().values() if module.folder == folder}
    assert not empty, f"rooms without a file: {', '.join(sorted(empty))}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_imports_go_one_way(folder: str) -> None:
    order = ROOMS[folder]
    for module in modules().values():
        if module.folder != folder:
            continue
        for other in arrows(module):
            if other.folder == folder:
                assert order.index(other.room) <= order.index(module.room), f"{module} imports {other}"
            # Commands reach upward, but only inside functions: next test.
            elif module.room != "cli":
                assert FOLDERS.index(other.folder) < FOLDERS.index(folder), f"{module} imports {other}"
        for name in imports(module.path):
            assert name.split(".")[0] not in LINKED, f"{module} imports top-level {name}"


def test_commands_reach_upward_only_inside_functions() -> None:
    for module in modules().values():
        if module.room == "cli":
            for other in arrows(module, top_level_only=True):
                assert FOLDERS.index(other.folder) <= FOLDERS.index("ohlora"), f"{module} imports {other}"


def test_no_module_imports_itself_in_a_circle() -> None:
    targets = {
        name: {imported(one) for one in imports(module.path)} - {None, name} for name, module in modules().items()
    }
    # A module that imports none of those left is in no circle.
    while free := [name for name, others in targets.items() if not others & targets.keys()]:
        for name in free:
            del targets[name]
    assert not targets, f"in or above a circle of imports: {', '.join(sorted(targets))}"


@dataclass
class Picture:
    """What docs/architecture.md draws: rooms of each folder, arrows between rooms (FOLDER/ROOM), between folders
    (thick), and from a room to folders (dotted).
    """

    rooms: dict[str, set[str]]
    arrows: dict[str, set[str]]
    thick: dict[str, set[str]]
    dotted: dict[str, set[str]]


def drawn() -> Picture:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    names: dict[str, str] = {}
    picture = Picture({}, {}, {}, {})
    for line in text.partition("```mermaid")[2].partition("```")[0].splitlines():
        words = line.split()
        if words[:1] == ["subgraph"]:
            picture.rooms[words[1]] = set()
            names[words[1]] = words[1]
        elif node := NODE.match(line):
            folder = list(picture.rooms)[-1]
            room = "__init__" if node["label"] == "public names" else node["label"]
            names[node["name"]] = f"{folder}/{room}"
            picture.rooms[folder].add(room)
        elif len(words) == 3:
            kind = {"-->": picture.arrows, "==>": picture.thick, "-.->": picture.dotted}[words[1]]
            kind.setdefault(names[words[0]], set()).add(names[words[2]])
    return picture


def in_picture(folder: str, room: str) -> bool:
    """Tests of the bench and the entries of packages are not drawn, but for the public names."""
    return not room.startswith(("test_", "conftest", "__")) or (folder, room) == ("ohlora", "__init__")


def compare(drawn_arrows: dict[str, set[str]], real: dict[str, set[str]]) -> None:
    """Every drawn arrow is an import, and every import follows drawn arrows."""

    def below(place: str) -> set[str]:
        return {place}.union(*(below(other) for other in drawn_arrows.get(place, ())))

    for place, others in drawn_arrows.items():
        assert others <= real[place], f"drawn, but not imported: {place} to {others - real[place]}"
    for place, others in real.items():
        assert others <= below(place), f"imported, but not drawn: {place} to {others - below(place)}"


def test_the_picture_of_rooms_is_true() -> None:
    picture = drawn()
    assert picture.rooms == {f: {room for room in ROOMS[f] if in_picture(f, room)} for f in FOLDERS}

    rooms: dict[str, set[str]] = {}
    folders: dict[str, set[str]] = {}
    upward: dict[str, set[str]] = {}
    for module in modules().values():
        for other in arrows(module):
            place = f"{module.folder}/{module.room}"
            if other.folder == module.folder:
                if other.room != module.room and in_picture(module.folder, module.room):
                    rooms.setdefault(place, set()).add(f"{other.folder}/{other.room}")
            elif FOLDERS.index(other.folder) > FOLDERS.index(module.folder):
                upward.setdefault(place, set()).add(other.folder)
            else:
                folders.setdefault(module.folder, set()).add(other.folder)
    compare(picture.arrows, rooms)
    compare(picture.thick, folders)
    assert picture.dotted == upward


def test_the_table_of_rooms_names_them_all() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text(encoding="utf-8")
    named: dict[str, set[str]] = {}
    folder = ""
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        if len(cells) == 5 and (cells[1].strip("`") in FOLDERS or (folder and not cells[1])):
            folder = cells[1].strip("`") or folder
            named.setdefault(folder, set()).update(re.findall(r"`([^`]+)`", cells[2]))
    for folder in FOLDERS:
        inner = {room for room in ROOMS[folder] if "/" in room or room.startswith(("test_", "__"))}
        assert named[folder] == set(ROOMS[folder]) - inner, folder


@pytest.mark.parametrize("folder", RUNTIME)
def test_one_room_of_the_runtime_names_torch(folder: str) -> None:
    # It is entered when its backend is asked for by name, never by 'auto'.
    for module in modules().values():
        if module.folder == folder and module.room != TORCH_ROOM:
            for name in imports(module.path):
                assert name.split(".")[0] not in TORCH, f"{module} imports {name}"


@pytest.mark.parametrize("folder", MOST_FILES)
def test_few_files_lie_beside_the_rooms(folder: str) -> None:
    files = sorted(path.name for path in (ROOT / folder).glob("*.py"))
    assert len(files) <= MOST_FILES[folder], f"{folder}/ holds {', '.join(files)}: put some into a room"


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
        "    r.recolor(np.zeros((1, 64, 64, 3), np.uint8), ohlora.Ombre(0.5), detect='whole')\n"
        "import ohlora.cli.execute, ohlora.cli.render, ohlora.faces, ohlora.render.job_file"
    )
    assert "torch" not in loaded
    assert "ohlora.kernels.ombre" in loaded


def test_command_line_help_loads_no_engine() -> None:
    loaded = loaded_after("import ohlora.cli")
    assert not loaded & {"torch", "numba", "cv2", "onnxruntime", "openvino", "numpy"}


@pytest.mark.parametrize("folder", LINKED)
def test_links_lead_to_the_top_level_folders(folder: str) -> None:
    link = ROOT / "ohlora" / folder
    if not link.is_symlink():
        pytest.skip("a checkout without symbolic links")
    assert link.resolve() == ROOT / folder
    assert not link.readlink().is_absolute()
