"""What is exported of each network: graphs with the pre-processing inside, and the module's own answers beside them.

A `build` takes the module and the chosen options and gives a checked ONNX model; a `reference` gives what the
unrewritten module makes of the same inputs, prepared by the code that the toolkit itself uses.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, TypeVar, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohlora.bundle.photo.rewrites import Haar, mapping_arrays, synthesis_arrays
from ohlora.errors import InvalidInputError
from ohlora.export.graphs import mobilestylegan, mtcnn
from ohlora.export.graphs.from_torch import TRACED_BATCH, to_onnx
from ohlora.export.graphs.generator import as_levels, exact_reference, synthesis_graph
from ohlora.export.graphs.mapping import MappingEnd, SplitMapping, mapping_end_graph, mapping_graph
from ohlora.export.graphs.pictures import PictureGraph, TeacherGraph, first_class, score_scale, unit_scale
from ohlora.export.graphs.student import reference_hair, reference_logits, student_module
from ohlora.export.networks.compare import Kind
from ohlora.export.networks.entry import Arrays, GraphExport, Options
from ohlora.export.networks.inputs import faces, normal
from ohlora.export.rewrites.batch_norms import fold_batch_norms
from ohlora.export.rewrites.discriminator import DiscriminatorGraph, Statistics, rewrite_discriminator
from ohlora.export.rewrites.facexformer import parse_only
from ohlora.export.rewrites.generator import Collapse, rewrite_generator
from ohlora.training.cnn.pictures import network_input
from ohlora.training.directions.reader import Reader
from ohlora.training.gan.data import to_tensor
from ohlora.training.nets.effisegnet import SIZE, EffiSegNet
from ohlora.training.nets.mobilestylegan import MobileStyleGAN
from ohlora.training.nets.score_cnns import SIZE as CNN_SIZE
from ohlora.training.nets.score_cnns import ClassifierCnn
from ohlora.training.nets.stylegan import Generator
from ohlora.training.nets.stylegan_discriminator import Discriminator
from ohlora.training.teachers.protocol import normalized

Network = TypeVar("Network", bound=nn.Module)
CPU = torch.device("cpu")
BISENET_SIZE = 512  # what the published weights are for
FREE_SIDES = (60, 73)  # of the proposal network's probe; neither square nor even, as the levels of its pyramid are


def own_copy(module: Network) -> Network:
    """On the CPU, float32, in evaluation mode; the caller's module keeps its mode and place."""
    return copy.deepcopy(module).cpu().float().eval()


def exact(module: Network) -> Network:
    """A float64 copy for references."""
    return copy.deepcopy(module).cpu().double().eval()


def doubles(inputs: Arrays) -> list[Tensor]:
    """Inputs in their order as float64; pictures of bytes as [N,3,R,R] in [-1,1]."""
    return [
        (to_tensor(value, CPU).contiguous() if value.dtype == np.uint8 else torch.from_numpy(value)).double()
        for value in inputs.values()
    ]


# --- generator ---------------------------------------------------------------------------------------------------


def latents(module: Generator | MobileStyleGAN, seed: int, count: int, options: Options) -> Arrays:
    config = module.config
    inputs: Arrays = {"z": normal(seed, count, config.z_size)}
    if config.label_size:
        inputs["label"] = normal(seed + 1, count, config.label_size)
    return inputs


def branches(module: Generator, seed: int, count: int, options: Options) -> Arrays:
    """Both branches of random latents."""
    hidden = exact(module).mapping.hidden(*doubles(latents(module, seed, count, options)))
    return {"mapping_split1": torch.cat(hidden, 1).float().numpy()}


def styles(module: Generator | MobileStyleGAN, seed: int, count: int, options: Options) -> Arrays:
    """wp [N,layers,W] of random latents, another in every layer: a mixed-up style shows."""
    layers = module.config.layers
    w = exact(module).mapping(*doubles(latents(module, seed, count * layers, options)))
    return {"wp": w.unflatten(0, (count, layers)).float().numpy()}


def reference_mapping(module: Generator, inputs: Arrays, options: Options) -> Arrays:
    mapping = exact(module).mapping
    if not module.config.split_size:
        return {"w": mapping(*doubles(inputs)).numpy()}
    w, split1 = SplitMapping(mapping)(*doubles(inputs))
    return {"w": w.numpy(), "mapping_split1": split1.numpy()}


def reference_mapping_end(module: Generator, inputs: Arrays, options: Options) -> Arrays:
    w, split2 = MappingEnd(exact(module).mapping)(*doubles(inputs))
    return {"w": w.numpy(), "mapping_split2": split2.numpy()}


def reference_synthesis(module: Generator, inputs: Arrays, options: Options) -> Arrays:
    return {"image": as_levels(exact_reference(module).synthesis(*doubles(inputs), lod=0.0))}


def rewritten(module: Generator, options: Options) -> Generator:
    """Folded exactly, rounded once."""
    return rewrite_generator(exact_reference(module), cast(Collapse, options["collapse"])).float()


GENERATOR = (
    GraphExport(
        "mapping",
        lambda module, options: mapping_graph(rewritten(module, options)),
        reference_mapping,
        latents,
        {"w": "latent", "mapping_split1": "latent"},
    ),
    GraphExport(
        "synthesis",
        lambda module, options: synthesis_graph(rewritten(module, options), cast(Collapse, options["collapse"])),
        reference_synthesis,
        styles,
        {"image": "image"},
    ),
    GraphExport(
        "mapping_end",
        lambda module, options: mapping_end_graph(rewritten(module, options)),
        reference_mapping_end,
        branches,
        {"w": "latent", "mapping_split2": "latent"},
        needed=lambda module: bool(module.config.split_size),
    ),
)


# --- photographic generator --------------------------------------------------------------------------------------

SIZES = {"own": 1, "half": 2, "quarter": 4}  # of the images: what the module's own side is divided by


def photo_size(module: MobileStyleGAN, options: Options) -> int:
    return module.config.size // SIZES[options["size"]]


def photo_mapping(module: MobileStyleGAN, options: Options) -> onnx.ModelProto:
    architecture = module.config.architecture
    return mobilestylegan.mapping_graph(mapping_arrays(module.arrays(), architecture), architecture)


def photo_synthesis(module: MobileStyleGAN, options: Options) -> onnx.ModelProto:
    architecture, size, haar = module.config.architecture, photo_size(module, options), cast(Haar, options["haar"])
    arrays = synthesis_arrays(module.arrays(), architecture, size, haar)
    return mobilestylegan.synthesis_graph(arrays, architecture, size, haar)


def reference_photo_mapping(module: MobileStyleGAN, inputs: Arrays, options: Options) -> Arrays:
    return {"w": exact(module).mapping(*doubles(inputs)).numpy()}


def reference_photo_synthesis(module: MobileStyleGAN, inputs: Arrays, options: Options) -> Arrays:
    return {"image": as_levels(exact(module.sized(photo_size(module, options))).synthesis(*doubles(inputs)))}


PHOTO_GENERATOR = (
    GraphExport("mapping", photo_mapping, reference_photo_mapping, latents, {"w": "latent"}),
    GraphExport("synthesis", photo_synthesis, reference_photo_synthesis, styles, {"image": "image"}),
)


# --- networks that see a picture ---------------------------------------------------------------------------------


def picture_graph(
    name: str,
    wrap: Callable[[Any, Options], nn.Module],
    answer: Callable[[Any, Arrays, Options], Any],
    outputs: dict[str, Kind],
    side: int | None = None,
    said: Callable[[Options], dict[str, str]] = lambda options: {},
) -> GraphExport:
    """A graph of a picture, and its label where the module's configuration has labels.

    wrap: the module that is traced. answer: what the module makes of the inputs, an array or tensor for each output.
    side: of the pictures; None: the module says it. said: what the graph's metadata say besides the name.
    """

    def inputs(module: Any, seed: int, count: int, options: Options) -> Arrays:
        config = getattr(module, "config", None)
        images: NDArray[Any] = faces(seed, count, side or getattr(config or module, "resolution", None) or module.size)
        if options.get("input") == "float32":
            images = to_tensor(images, CPU).contiguous().numpy()
        size = getattr(config, "label_size", 0)
        return {"image": images} | ({"label": normal(seed + 1, count, size)} if size else {})

    def build(module: Any, options: Options) -> onnx.ModelProto:
        example = {key: torch.from_numpy(value) for key, value in inputs(module, 0, TRACED_BATCH, options).items()}
        names = list(outputs) if len(outputs) > 1 else next(iter(outputs))
        return to_onnx(wrap(module, options), example, names, {"ohlora.role": name} | said(options))

    def reference(module: Any, given: Arrays, options: Options) -> Arrays:
        made = answer(module, given, options)
        values = made if isinstance(made, tuple) else (made,)
        return {key: np.asarray(value) for key, value in zip(outputs, values, strict=True)}

    return GraphExport(name, build, reference, inputs, outputs)


def whole(module: nn.Module, options: Options) -> PictureGraph:
    network = own_copy(module)
    return PictureGraph(network, network=network)


def exactly(module: nn.Module, given: Arrays, options: Options) -> Any:
    return exact(module)(*doubles(given))


def judge(module: Discriminator, options: Options) -> nn.Module:
    network = rewrite_discriminator(exact(module)).float()
    return DiscriminatorGraph(network, cast(Statistics, options["statistics"]))


def judgements(module: Discriminator, given: Arrays, options: Options) -> Tensor:
    network, tensors = exact(module), doubles(given)
    if options["statistics"] == "batch":
        return cast(Tensor, network(*tensors, lod=0.0))
    # Each picture as a batch of its own.
    rows = zip(*(torch.split(tensor, 1) for tensor in tensors), strict=True)
    return torch.cat([network(*row, lod=0.0) for row in rows])


def statistics_said(options: Options) -> dict[str, str]:
    said = {"ohlora.statistics": options["statistics"]}
    return said | ({"ohlora.rows": "dependent"} if options["statistics"] == "batch" else {})


def student(model: EffiSegNet, several: bool) -> PictureGraph:
    if several and model.outputs == 1:
        raise InvalidInputError("this student has one output, needed is one of several classes: give another file")
    return student_module(model, "parsing" if several else "hair")


def parser(module: nn.Module, options: Options) -> TeacherGraph:
    network = fold_batch_norms(exact(module)).float()
    return TeacherGraph(cast(Any, network).parse, network=network)


def parse_path(module: Any, options: Options) -> TeacherGraph:
    network = parse_only(own_copy(module))
    return TeacherGraph(network, parse=network)


def classes(module: Any, given: Arrays, options: Options) -> Tensor:
    """Class ids of a teacher."""
    planes = torch.from_numpy(normalized(given["image"])).permute(0, 3, 1, 2).contiguous()
    return first_class(own_copy(module).parse(planes))


def scorer(module: nn.Module, options: Options) -> PictureGraph:
    network = own_copy(module)
    return PictureGraph(network, unit_scale if isinstance(module, ClassifierCnn) else score_scale, network=network)


def scores(module: nn.Module, given: Arrays, options: Options) -> Any:
    x = network_input(given["image"], CPU, signed=not isinstance(module, ClassifierCnn)).contiguous()
    return exact(module)(x.double())


def reader(module: Reader, options: Options) -> PictureGraph:
    """Parameters in their own units."""
    network = fold_batch_norms(exact(module)).float()
    return PictureGraph(lambda x: network(x) * network.spread + network.mean, network=network)


def score_graph(name: str) -> GraphExport:
    return picture_graph(name, scorer, scores, {"scores": "score"}, CNN_SIZE, lambda options: {"ohlora.role": "scores"})


DISCRIMINATOR = picture_graph("discriminator", judge, judgements, {"score": "score"}, said=statistics_said)
V5_DISCRIMINATOR = picture_graph("discriminator-v5", whole, exactly, {"score": "score"}, CNN_SIZE)
CVAE_ENCODER = picture_graph("cvae-encoder", whole, exactly, {"mean": "latent", "log_variance": "latent"})
STUDENT = picture_graph(
    "student",
    lambda module, options: student(module, several=False),
    lambda module, given, options: reference_hair(own_copy(module), given["image"]),
    {"hair": "mask"},
    SIZE,
)
PARSING = picture_graph(
    "parsing",
    lambda module, options: student(module, several=True),
    lambda module, given, options: reference_logits(own_copy(module), given["image"]).argmax(1).astype(np.uint8),
    {"parsing": "classes"},
    SIZE,
)
FACEXFORMER = picture_graph("facexformer", parse_path, classes, {"parsing": "classes"}, SIZE)
BISENET = picture_graph("bisenet", parser, classes, {"parsing": "classes"}, BISENET_SIZE)
READER = picture_graph(
    "reader", reader, lambda module, given, options: own_copy(module).read(given["image"]), {"parameters": "score"}
)


# --- face networks -----------------------------------------------------------------------------------------------


class FaceNetworks(nn.Module):
    """proposal, refinement, output: facenet-pytorch's PNet, RNet, ONet."""

    def __init__(self, proposal: nn.Module, refinement: nn.Module, output: nn.Module) -> None:
        super().__init__()
        self.proposal, self.refinement, self.output = proposal, refinement, output


def face_graph(name: str) -> GraphExport:
    """One of the three, written out by hand (`graphs.mtcnn`)."""
    net = mtcnn.NETS[name]

    def build(module: FaceNetworks, options: Options) -> onnx.ModelProto:
        state = module.get_submodule(name).state_dict()
        return mtcnn.build(net, {key: value.detach().cpu().numpy() for key, value in state.items()})

    def reference(module: FaceNetworks, inputs: Arrays, options: Options) -> Arrays:
        planes = torch.from_numpy(np.ascontiguousarray(inputs["image"].transpose(0, 3, 1, 2)))
        # box, (landmarks,) classes: facenet-pytorch's order.
        box, *points, classes = (value.numpy() for value in module.get_submodule(name)((planes - 127.5) * 0.0078125))
        found = {"probability": classes[:, 1], "box": box if net.side else box.transpose(0, 2, 3, 1)}
        return found | ({"landmarks": points[0]} if points else {})

    def pictures(module: FaceNetworks, seed: int, count: int, options: Options) -> Arrays:
        """Portraits as float32 RGB 0..255, as the cascade's area sampling makes them."""
        images = faces(seed, count, net.side or max(FREE_SIDES)).astype(np.float32)
        return {"image": images if net.side else np.ascontiguousarray(images[:, : FREE_SIDES[0], : FREE_SIDES[1]])}

    return GraphExport(name, build, reference, pictures, {"probability": "score", "box": "score", "landmarks": "score"})
