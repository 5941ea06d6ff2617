"""Every named rewrite: equal before and after, in float64; where a rewrite is said not to be exact, it is not."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from ohlora.bench.baselines.networks import documented_student, documented_upsampling
from ohlora.bench.suites.declined import BatchedStyles
from ohlora.errors import InvalidInputError
from ohlora.export.graphs.generator import SynthesisGraph, exact_reference
from ohlora.export.networks.registry import NETWORKS
from ohlora.export.rewrites.batch_norms import fold_batch_norms, norm_pairs
from ohlora.export.rewrites.discriminator import DiscriminatorGraph, rewrite_discriminator
from ohlora.export.rewrites.facexformer import parse_only
from ohlora.export.rewrites.passes import DECLINED, PASSES, passes_of
from ohlora.export.rewrites.student import InferenceStudent
from ohlora.training.nets.facexformer import FaceXFormer
from ohlora.training.nets.stylegan_layers import Blur, DownConv, UpConv, minibatch_std, widen
from ohlora.training.weights.facexformer_keys import TEACHER
from tests.support.golden_weights import facexformer_state
from tests.support.network_modules import DISCRIMINATOR, GENERATOR, random_module

EXACT = 1e-12  # of values around 1, in float64

Run = Callable[[Any], Tensor]


@pytest.fixture(autouse=True)
def seeded_without_gradients() -> Any:
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        yield


def doubles(*shape: int, seed: int = 1) -> Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def run_generator(module: Any) -> Tensor:
    """w and picture of different styles in every layer; layer by layer, since rewritten ones have parts replaced."""
    w = module.mapping(doubles(2, GENERATOR.z_size), doubles(2, GENERATOR.label_size, seed=2))
    wp = w[:, None] + doubles(2, GENERATOR.layers, GENERATOR.w_size, seed=3)
    x = module.synthesis.const.expand(2, -1, -1, -1)
    for index, layer in enumerate(module.synthesis.layers):
        x = layer(x, wp[:, index])
    return torch.cat([w.flatten(), module.synthesis.to_rgb[-1](x).flatten()])


def run_discriminator(module: Any) -> Tensor:
    side = DISCRIMINATOR.resolution
    score: Tensor = module(doubles(4, 3, side, side), doubles(4, DISCRIMINATOR.label_size, seed=2), lod=0.0)
    return score


def run_student(module: Any) -> Tensor:
    logits: Tensor = module.logits(doubles(1, 3, 224, 224).clamp(-1, 1))
    return logits


CASES: dict[str, tuple[Callable[[], nn.Module], Run]] = {
    "generator": (lambda: exact_reference(random_module("generator")), run_generator),  # type: ignore[arg-type]
    "discriminator": (lambda: random_module("discriminator").double(), run_discriminator),
    "student": (lambda: random_module("student").double(), run_student),
    "bisenet": (lambda: random_module("bisenet").double(), lambda m: m.parse(doubles(1, 3, 64, 96))),
    "reader": (lambda: random_module("reader").double(), lambda m: m(doubles(2, 3, 32, 32))),
}


def size_of(module: nn.Module) -> int:
    """Numbers that the module holds. Constants of the same size take the place of parameters in some passes."""
    return sum(value.numel() for value in (*module.parameters(), *module.buffers()))


def assert_close(made: Tensor, wanted: Tensor, tolerance: float = EXACT) -> None:
    assert made.shape == wanted.shape
    assert made.dtype == wanted.dtype
    assert float((made - wanted).abs().max()) <= tolerance * max(1.0, float(wanted.abs().max()))


def apply_passes(network: str, module: nn.Module) -> nn.Module:
    for one in passes_of(network):
        module = one.function(module)
    return module


@pytest.mark.parametrize("network", list(CASES))
def test_each_pass_on_its_own_place_in_the_order(network: str) -> None:
    make, run = CASES[network]
    module = make()
    wanted = run(module)
    assert float(wanted.std()) > 1e-3  # all alike would be equal after anything
    for one in passes_of(network):
        before = {key: value.clone() for key, value in module.state_dict().items()}
        made = one.function(module)
        assert made is not module, one.name
        assert_close(run(made), wanted)
        assert all(torch.equal(value, before[key]) for key, value in module.state_dict().items()), one.name
        module = made
    assert not [m for m in module.modules() if isinstance(m, nn.BatchNorm2d)]


@pytest.mark.parametrize("name", [one.name for one in passes_of("generator")] + ["collapse_subpixel"])
def test_generator_passes_alone(name: str) -> None:
    """None of them needs the ones before."""
    module = exact_reference(random_module("generator"))  # type: ignore[arg-type]
    one = next(one for one in PASSES if one.name == name)
    made = one.function(module)
    assert_close(run_generator(made), run_generator(module))


def test_what_is_dead_is_gone() -> None:
    generator = random_module("generator")
    made = apply_passes("generator", generator)
    assert not [key for key in made.state_dict() if key.startswith(("synthesis.to_rgb.0", "synthesis.layers.0.offset"))]
    assert not [m for m in made.modules() if isinstance(m, UpConv)]
    judge = apply_passes("discriminator", random_module("discriminator"))
    assert [key for key in judge.state_dict() if "from_rgb" in key] == [
        "blocks.0.from_rgb.weight",
        "blocks.0.from_rgb.bias",
    ]
    assert not [m for m in judge.modules() if isinstance(m, DownConv)]
    student = random_module("student")
    assert size_of(apply_passes("student", student)) < size_of(student)


def test_gains_are_one_after_folding() -> None:
    for network in ("generator", "discriminator"):
        made = passes_of(network)[0].function(random_module(network))
        layers = [m for m in made.modules() if hasattr(m, "weight_gain")]
        assert layers
        assert all(layer.weight_gain == 1.0 for layer in layers)


def test_forms_that_the_bench_compares_are_equal() -> None:
    """The documented forms written out, and the grouping of style affines that is not made."""
    generator: Any = exact_reference(random_module("generator"))  # type: ignore[arg-type]
    plain = documented_upsampling(generator)
    assert len([m for m in plain.modules() if isinstance(m, UpConv)]) == 1  # the larger of two sizes was fused
    assert_close(run_generator(plain), run_generator(generator))
    rewritten: Any = apply_passes("generator", generator)
    wp = doubles(2, GENERATOR.layers, GENERATOR.w_size)
    assert_close(BatchedStyles(rewritten)(wp), SynthesisGraph(rewritten)(wp))
    student: Any = random_module("student").double()
    assert_close(run_student(documented_student(student)), run_student(student))


# --- choices and the table ---------------------------------------------------------------------------------------


def test_the_table_speaks_of_networks_that_exist() -> None:
    for one in (*PASSES, *DECLINED):
        assert set(one.networks) <= set(NETWORKS), one.name
    assert all(one.effect.endswith(".") for one in PASSES)
    assert all(one.reason.endswith(".") for one in DECLINED)
    assert len({one.name for one in PASSES}) == len(PASSES)


def test_of_alternatives_one_is_taken() -> None:
    names = [one.name for one in passes_of("generator")]
    assert "collapse_transposed" in names
    assert "collapse_subpixel" not in names
    assert [one.name for one in passes_of("generator", "subpixel")] == [*names[:-1], "collapse_subpixel"]


# --- batch norms -------------------------------------------------------------------------------------------------


class Tangled(nn.Module):
    """Only `a` and its norm may be folded: `b` is read twice, `c` runs twice, `d` is normed after an activation."""

    def __init__(self) -> None:
        super().__init__()
        for name in "abcd":
            setattr(self, name, nn.Conv2d(3, 3, 3, padding=1, bias=name == "a"))
            setattr(self, f"{name}_norm", nn.BatchNorm2d(3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.a_norm(self.a(x))
        y = self.b(x)
        x = self.b_norm(y) + y
        x = self.c_norm(self.c(self.c(x)))
        return self.d_norm(F.relu(self.d(x)))


@settings(max_examples=20, deadline=None)
@given(seed=st.integers(0, 10_000), outputs=st.integers(1, 5), bias=st.booleans(), groups=st.sampled_from([1, 3]))
def test_a_folded_norm_is_equal(seed: int, outputs: int, bias: bool, groups: int) -> None:
    torch.manual_seed(seed)
    channels = outputs * groups
    module = nn.Sequential(nn.Conv2d(3, channels, 3, groups=groups, bias=bias), nn.BatchNorm2d(channels)).double()
    for value in (*module[1].parameters(), *module[1].buffers()):
        if value.ndim:
            value.detach().uniform_(0.3, 2.0)
    module.eval()
    made = fold_batch_norms(module)
    assert isinstance(made[1], nn.Identity)
    x = doubles(2, 3, 6, 7, seed=seed)
    assert_close(made(x), module(x))


def test_only_what_is_exact_is_folded() -> None:
    module = Tangled().double()
    for value in module.buffers():
        if value.ndim:
            value.uniform_(0.3, 2.0)
    module.eval()
    assert list(norm_pairs(module)) == [("a", "a_norm")]
    x = doubles(1, 3, 5, 5)
    assert_close(fold_batch_norms(module)(x), module(x))


def test_what_cannot_be_traced_is_refused() -> None:
    with pytest.raises(InvalidInputError, match="a EffiSegNet cannot be traced"):
        fold_batch_norms(random_module("student"))


# --- declined: not exact at the border ---------------------------------------------------------------------------


def merged_downsampling(source: DownConv, x: Tensor) -> Tensor:
    """Blur and stride-2 convolution as one 6x6 kernel: their full convolution, padded by 2."""
    wide = widen(source.weight * source.weight_gain * 0.25)  # [O,I,4,4]
    blur = source.blur.kernel[:1].expand(wide.shape[1], 1, 3, 3)
    kernel = F.conv2d(F.pad(wide, (2, 2, 2, 2)), blur.flip(2, 3), groups=wide.shape[1])
    return F.conv2d(x, kernel, source.bias, stride=2, padding=2)


def test_blur_before_a_stride_2_convolution_folds_inside_only() -> None:
    source = DownConv(3, 4).double()
    x = doubles(1, 3, 16, 16)
    wanted, made = source(x), merged_downsampling(source, x)
    assert_close(made[:, :, 1:-1, 1:-1], wanted[:, :, 1:-1, 1:-1])
    assert float((made - wanted)[:, :, 0].abs().min()) > 1e-6  # every value of the border row


def test_blur_after_a_transposed_convolution_folds_inside_only() -> None:
    source = UpConv(3, 4, flipped=True).double()
    x = doubles(1, 3, 8, 8)
    wide = source.transposed_kernel()  # [I,O,4,4]
    blur = Blur(4).double().kernel
    kernel = F.conv2d(F.pad(wide, (2, 2, 2, 2)), blur.flip(2, 3), groups=4)  # [I,O,6,6]
    made, wanted = F.conv_transpose2d(x, kernel, stride=2, padding=2), source(x)
    assert made.shape == wanted.shape
    assert_close(made[:, :, 1:-1, 1:-1], wanted[:, :, 1:-1, 1:-1])
    assert float((made - wanted)[:, :, 0].abs().min()) > 1e-6


# --- discriminator -----------------------------------------------------------------------------------------------


def test_alone_is_a_batch_of_one() -> None:
    module: Any = random_module("discriminator").double()
    graph = DiscriminatorGraph(rewrite_discriminator(module), "alone")
    side = DISCRIMINATOR.resolution
    image, label = doubles(3, 3, side, side), doubles(3, DISCRIMINATOR.label_size)
    wanted = torch.cat([module(image[i : i + 1], label[i : i + 1], lod=0.0) for i in range(3)])
    assert_close(graph(image, label), wanted)
    assert float((module(image, label, lod=0.0) - wanted).abs().max()) > 1e-3  # the batch does count
    assert float(minibatch_std(doubles(1, 5, 4, 4), 4).flatten()[0]) == pytest.approx(1e-4)


def test_a_growing_discriminator_is_refused() -> None:
    module: Any = random_module("discriminator")
    module.lod.fill_(0.5)
    with pytest.raises(InvalidInputError, match=r"level of detail 0.5"):
        rewrite_discriminator(module)


# --- students and FaceXFormer ------------------------------------------------------------------------------------


def test_student_passes_end_where_the_export_begins() -> None:
    student = random_module("student")
    assert isinstance(apply_passes("student", student), InferenceStudent)


def test_parsing_path_of_facexformer_equals_and_drops_the_other_heads() -> None:
    """float32: the network computes its places in it."""
    model = TEACHER.load(facexformer_state()).eval()
    path = parse_only(model)
    image = torch.randn(2, 3, 224, 224, generator=torch.Generator().manual_seed(1))
    wanted, made = model.parse(image), path(image)
    assert float((made - wanted).abs().max()) < 1e-4
    kept = {key.split(".")[2] for key in path.state_dict() if key.startswith("decoder.heads.")}
    assert kept == {"parsing"}
    assert not [key for key in path.state_dict() if key.startswith(("decoder.tokens", "decoder.upscale"))]
    dead = 978_399 + 1_792  # the other heads and their tokens; the tokens' part lives on in one constant
    assert sum(p.numel() for p in path.parameters()) < sum(p.numel() for p in model.parameters()) - dead
    assert isinstance(model, FaceXFormer)
    assert set(model.decoder.heads) != kept  # the argument is left as it is
