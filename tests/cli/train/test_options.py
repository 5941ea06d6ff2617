"""Options of the training commands: none is lost, those of recipes say what the recipes say, none needs PyTorch."""

from __future__ import annotations

import re
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import pytest
import typer
from typer.testing import CliRunner

from ohlora.base.recipe import settings_of
from ohlora.cli import train
from ohlora.cli.options import grouped
from ohlora.cli.train.recipe_options import Changes, RecipeFields
from ohlora.errors import InvalidInputError

# Names that scripts use. More may come; none of these may go.
NAMES = {
    "distill": """
        --data --out/-o --recipe --encoder --imagenet/--no-imagenet --encoder-weights --loss --phases --holdout
        --learning-rate --batch-size --start-from --seed --portraits --generated --generated-count --portrait-share
        --accelerator --restart --json --help""",
    "directions": """
        --out/-o --samples --reader --measure --json --help""",
    "gallery": """
        --out/-o --count/-n --candidates --first-seed --help""",
    "reader": """
        --out/-o --pictures --epochs --seed --json --help""",
    "gan": """
        --out/-o --recipe --resolution --phases --images --kimg --batch-size --time-limit --precision
        --compile/--no-compile --augment --store --start-from --seed --accelerator --checkpoint-minutes
        --sample-minutes --measure --restart --json --help""",
    "portraits": """
        --count/-n --resolution/-r --out/-o --first-seed --format/-f --workers --json --help""",
    "evaluate-hair": """
        --data --holdout --split-seed --portraits --generated --count/-n --teacher --first-seed --resolution/-r
        --out/-o --json --help""",
    "parse": """
        --teacher --out/-o --variant --teacher-kind --exact-face --recursive/-r --batch --device --restart --json
        --help""",
    "faces-set": """
        --teacher --bundle/-b --images --recursive/-r --count --shard --part --psi --varied --toward --sizes --portraits
        --crops --crop --quality --seed --precision --batch --device --out/-o --restart --json --help""",
    "compare-losses": """
        --data --out/-o --losses --recipe --epochs --size --encoder --imagenet/--no-imagenet --start-from
        --portraits --held-out-portraits --holdout --learning-rate --batch-size --seed --shown --accelerator
        --restart --json --help""",
    "parsing": """
        --data --out/-o --start-from --encoder --imagenet/--no-imagenet --loss --balance --phases --evaluate-every
        --holdout --learning-rate --batch-size --seed --portraits --generated --generated-count --portrait-share
        --accelerator --restart --json --help""",
    "hairzoo": """
        --data --out/-o --recipe --encoder-type --decoder-type --encoder-weights --start-from --img-size --data-type
        --light/--heavy --fold --epochs --batch-size --accumulation --loss --scheduler --encoder-lr --min-lr
        --floor/--no-floor --weight-decay --clip-norm --augment/--no-augment --precision --seed --num-workers
        --accelerator --list --restart --json --help""",
    "hairzoo-data": """
        --out/-o --json --help""",
    "hairzoo-inference": """
        --out/-o --encoder-type --decoder-type --img-size --recursive/-r --accelerator --json --help""",
    "sample": """
        --generator/-g --out/-o --preset --count/-n --first-number --first-seed --batch --psi --truncation-layers
        --labels --train-mode/--eval-mode --kind --smooth --accelerator --restart --json --help""",
    "unbundle": """
        --out/-o --network --json --help""",
    "finetune": """
        --generator --discriminator --images --scores --property-cnn --gender-cnn --monitor-models --set --compat
        --show --out/-o --accelerator --devices --nodes --precision --stop-after --restart --json --help""",
    "finetune-discriminator": """
        --generator --images --out/-o --steps --batch-size --learning-rate --r1-gamma --channel-base --group --seed
        --accelerator --devices --nodes --precision --stop-after --restart --json --help""",
    "label": """
        --attributes --first --out/-o --port --open/--no-open --json --help""",
    "pipeline": """
        --preset --settings --set --out/-o --only --until --from --force --write-settings --list --dry-run --json
        --help""",
    "classifier": """
        --labels --out/-o --version --start-from --start --width --folds --split --epochs --patience --batch-size
        --learning-rate --threshold --max-attempts --on-failure --seed --accelerator --devices --nodes --precision
        --restart --json --help""",
    "classify": """
        --models --labels --attribute --out/-o --accelerator --precision --json --help""",
    "filter": """
        --images --out/-o --recipe --rule --first-number --labels --link --json --help""",
    "property-cnn": """
        --scores --out/-o --width --epochs --patience --batch-size --learning-rate --seed --missing --accelerator
        --devices --nodes --precision --restart --json --help""",
    "hairstyle-cnn": """
        --scores --out/-o --width --epochs --patience --batch-size --learning-rate --seed --missing --accelerator
        --devices --nodes --precision --restart --json --help""",
    "merge-cnn": """
        --out/-o --json --help""",
    "rescore": """
        --model --kind --scores --out/-o --accelerator --precision --json --help""",
    "finetune-test": """
        --z --property-cnn --final --files --seed --out/-o --json --help""",
    "select": """
        --keep --all --order --report --out/-o --port --open/--no-open --restart --json --help""",
    "tail": """
        --size --wheel --faces --steps --held-out --batch --crop --margin --reach --rate --warmup --clip-norm --seed
        --json --help""",
    "vectorfind": """
        --generator/-g --scorer --out/-o --samples/-n --sample-folder --codes --faces --space --set
        --positive-raises --engine --accelerator --show --restart --json --help""",
}


def options(name: str) -> dict[str, Any]:
    """The options of a command by their names, as in NAMES."""
    command = typer.main.get_command(train.app).get_command(None, name)  # type: ignore[attr-defined]
    found = command.get_params(typer.Context(command))
    return {"/".join([*option.opts, *option.secondary_opts]): option for option in found}


def test_every_command_is_here() -> None:
    assert set(NAMES) == set(train.STAGES)


@pytest.mark.parametrize("command", NAMES)
def test_no_option_is_lost(command: str) -> None:
    lost = set(NAMES[command].split()) - set(options(command))
    assert not lost, f"ohlora train {command} has lost {', '.join(sorted(lost))}"


def test_options_are_read_without_pytorch() -> None:
    code = (
        "import sys, typer; from ohlora.cli import train; group = typer.main.get_command(train.app)\n"
        "for name in train.STAGES:\n"
        "    command = group.get_command(None, name); command.get_params(typer.Context(command))\n"
        "print([name for name in ('torch', 'timm', 'numba') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_options_of_a_recipe_say_what_it_says() -> None:
    from ohlora.training.hairzoo.config import ZooConfig

    found = options("hairzoo")
    for name, entry in settings_of(ZooConfig).items():
        option = next(o for o in found.values() if o.name == name)
        assert option.help == entry.meaning.help
        assert option.default is None  # the recipe's
    assert "/".join(found["--light/--heavy"].opts) == "--light"
    assert found["--img-size"].show_default == "the recipe's"
    assert found["--fold"].show_default == "0"
    assert found["--loss"].metavar == "[bce-dice|dice]"
    assert options("distill")["--holdout"].max == 0.9


@dataclass(frozen=True)
class Pair:
    left: Annotated[int, typer.Option("--left")] = 1
    right: Annotated[str, typer.Option("--right")] = "r"


def run(*arguments: str) -> Any:
    """What a command with the options of a recipe and of a group is called with."""
    called: list[Any] = []

    def command(
        name: Annotated[str, typer.Argument()],
        changes: Annotated[Changes, RecipeFields("gan.config:GanConfig", without=("images",))],
        pair: Pair,
        out: Annotated[Path, typer.Option("--out")] = Path("there"),
    ) -> None:
        called.append((name, changes, pair, out))

    app = typer.Typer(add_completion=False)
    app.command()(grouped(command, before=lambda: called.append("before")))
    result = CliRunner().invoke(app, [*arguments])
    if isinstance(result.exception, InvalidInputError):
        raise result.exception
    assert called[0] == "before"
    return called[1] if len(called) > 1 else result


def test_a_command_gets_what_was_set() -> None:
    assert run("x") == ("x", {}, Pair(), Path("there"))
    _, changes, pair, out = run(
        "x", "--betas", "0.5, 0.9", "--no-compile", "--augment", "flip,color", "--start-from", "./a.safetensors",
        "--phases", "8:1:pixel=1", "--r1-gamma", "3", "--left", "4", "--out", "here",
    )  # fmt: skip
    assert (pair, out) == (Pair(left=4), Path("here"))
    phases = changes.pop("phases")
    assert changes == {
        "betas": (0.5, 0.9), "compile": False, "augment": ("flip", "color"), "start_from": "a.safetensors",
        "r1_gamma": 3.0,
    }  # fmt: skip
    assert [phase.resolution for phase in phases] == [8]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--betas", "0.5"), "--betas must be 2 numbers with commas between, got (0.5,)"),
        (("--betas", "0.5,1"), "--betas must be at least 0 and less than 1, got 1.0"),
        (("--augment", "swirl"), "--augment must be color, translation, cutout or flip, got 'swirl'"),
        (("--phases", "8:1:pixel=x"), "phase '8:1:pixel=x': pixel must be a number, got 'x'"),
    ],
)
def test_a_wrong_value_is_named_by_its_option(arguments: tuple[str, ...], words: str) -> None:
    with pytest.raises(InvalidInputError, match=re.escape(words)):
        run("x", *arguments)
