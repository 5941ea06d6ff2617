"""What is exported of each network: graphs with the pre-processing inside, and the module's own answers beside them.

A `build` takes the module and the chosen options and gives a checked ONNX model; a `reference` gives what the
unrewritten module makes of the same inputs, prepared by the code that the toolkit itself uses.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from ohlora.errors import InvalidInputError
from ohlora.export.graphs.from_torch import TRACED_BATCH, to_onnx
from ohlora.export.graphs.generator import as_levels, exact_reference, synthesis_graph
from ohlora.export.graphs.mapping import MappingEnd, SplitMapping, mapping_end_graph, mapping_graph
from ohlora.export.graphs.student import ByteParser, ByteStudent, reference_hair, reference_logits
from ohlora.export.networks.inputs import faces, normal
from ohlora.export.rewrites.batch_norms import fold_batch_norms
from ohlora.export.rewrites.discriminator import DiscriminatorGraph, Statistics, rewrite_discriminator
from ohlora.export.rewrites.facexformer import parse_only
from ohlora.export.rewrites.generator import Collapse, rewrite_generator
from ohlora.export.rewrites.student import rewrite_student
from ohlora.training.cnn.pictures import network_input
from ohlora.training.directions.reader import Reader
from ohlora.training.gan.data import to_tensor
from ohlora.training.nets.bisenet import BiSeNet
from ohlora.training.nets.cvae_encoder import CvaeEncoder
from ohlora.training.nets.effisegnet import SIZE, EffiSegNet
from ohlora.training.nets.facexformer import FaceXFormer
from ohlora.training.nets.score_cnns import SIZE as CNN_SIZE
from ohlora.training.nets.score_cnns import ClassifierCnn
from ohlora.training.nets.stylegan import Generator
from ohlora.training.nets.stylegan_discriminator import Discriminator
from ohlora.training.nets.stylegan_v5_discriminator import V5Discriminator
from ohlora.training.teachers.protocol import DEVIATION, MEAN, normalized

Options = Mapping[str, str]
Arrays = dict[str, NDArray[Any]]
Network = TypeVar("Network", bound=nn.Module)
CPU = torch.device("cpu")


def exact(module: Network) -> Network:
    """A float64 copy for references."""
    return copy.deepcopy(module).cpu().double().eval()


def pixels(image: NDArray[np.uint8]) -> Tensor:
    """uint8 [N,R,R,3] -> float64 [N,3,R,R] in [-1,1]."""
    return to_tensor(image, CPU).contiguous().double()


# --- generator ---------------------------------------------------------------------------------------------------


def latents(module: Generator, seed: int, count: int, options: Options) -> Arrays:
    config = module.config
    inputs: Arrays = {"z": normal(seed, count, config.z_size)}
    if config.label_size:
        inputs["label"] = normal(seed + 1, count, config.label_size)
    return inputs


def build_mapping(module: Generator, options: Options) -> onnx.ModelProto:
    return mapping_graph(_rewritten(module, options))


def reference_mapping(module: Generator, inputs: Arrays, options: Options) -> Arrays:
    given = [torch.from_numpy(value).double() for value in inputs.values()]
    reference = exact_reference(module)
    if not module.config.split_size:
        return {"w": reference.mapping(*given).numpy()}
    w, split1 = SplitMapping(reference.mapping)(*given)
    return {"w": w.numpy(), "mapping_split1": split1.numpy()}


def build_mapping_end(module: Generator, options: Options) -> onnx.ModelProto:
    return mapping_end_graph(_rewritten(module, options))


def reference_mapping_end(module: Generator, inputs: Arrays, options: Options) -> Arrays:
    split1 = torch.from_numpy(inputs["mapping_split1"]).double()
    w, split2 = MappingEnd(exact_reference(module).mapping)(split1)
    return {"w": w.numpy(), "mapping_split2": split2.numpy()}


def branches(module: Generator, seed: int, count: int, options: Options) -> Arrays:
    """Both branches of random latents."""
    given = [torch.from_numpy(value).double() for value in latents(module, seed, count, options).values()]
    return {"mapping_split1": torch.cat(exact_reference(module).mapping.hidden(*given), 1).float().numpy()}


def styles(module: Generator, seed: int, count: int, options: Options) -> Arrays:
    """wp [N,layers,W] of random latents, another in every layer: a mixed-up style shows."""
    layers = module.config.layers
    given = [torch.from_numpy(value).double() for value in latents(module, seed, count * layers, options).values()]
    return {"wp": exact_reference(module).mapping(*given).unflatten(0, (count, layers)).float().numpy()}


def build_synthesis(module: Generator, options: Options) -> onnx.ModelProto:
    return synthesis_graph(_rewritten(module, options), cast(Collapse, options["collapse"]))


def reference_synthesis(module: Generator, inputs: Arrays, options: Options) -> Arrays:
    image = exact_reference(module).synthesis(torch.from_numpy(inputs["wp"]).double(), lod=0.0)
    return {"image": as_levels(image)}


def _rewritten(module: Generator, options: Options) -> Generator:
    # Folded exactly, rounded once.
    return rewrite_generator(exact_reference(module), cast(Collapse, options["collapse"])).float()


# --- discriminators ----------------------------------------------------------------------------------------------


def judged(module: Discriminator | V5Discriminator, seed: int, count: int, options: Options) -> Arrays:
    """Portraits, and labels where the discriminator takes them."""
    side = module.config.resolution if isinstance(module, Discriminator) else CNN_SIZE
    images: NDArray[Any] = faces(seed, count, side)
    if options["input"] == "float32":
        images = to_tensor(images, CPU).contiguous().numpy()
    label_size = module.config.label_size
    return {"image": images} | ({"label": normal(seed + 1, count, label_size)} if label_size else {})


def build_discriminator(module: Discriminator, options: Options) -> onnx.ModelProto:
    rewritten = rewrite_discriminator(exact(module)).float()
    graph = DiscriminatorGraph(rewritten, cast(Statistics, options["statistics"]))
    example = {name: torch.from_numpy(value) for name, value in judged(module, 0, TRACED_BATCH, options).items()}
    said = properties("discriminator", statistics=options["statistics"])
    if options["statistics"] == "batch":
        said |= properties("discriminator", rows="dependent")
    return to_onnx(graph, example, "score", said)


def reference_discriminator(module: Discriminator, inputs: Arrays, options: Options) -> Arrays:
    reference = exact(module)
    given = _judged_tensors(inputs)
    if options["statistics"] == "batch":
        return {"score": reference(*given, lod=0.0).numpy()}
    # Each picture as a batch of its own.
    rows = [reference(*(value[i : i + 1] for value in given), lod=0.0) for i in range(len(given[0]))]
    return {"score": torch.cat(rows).numpy()}


class V5Graph(nn.Module):
    """image uint8 [N,256,256,3] or float32 [N,3,256,256], label [N,3] -> score [N,1]."""

    def __init__(self, network: V5Discriminator) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, label: Tensor) -> Tensor:
        if image.dtype == torch.uint8:
            image = image.permute(0, 3, 1, 2).float() * (1 / 127.5) - 1.0
        score: Tensor = self.network(image, label)
        return score


def build_v5_discriminator(module: V5Discriminator, options: Options) -> onnx.ModelProto:
    example = {name: torch.from_numpy(value) for name, value in judged(module, 0, TRACED_BATCH, options).items()}
    return to_onnx(V5Graph(own_copy(module)), example, "score", properties("discriminator-v5"))


def reference_v5_discriminator(module: V5Discriminator, inputs: Arrays, options: Options) -> Arrays:
    return {"score": exact(module)(*_judged_tensors(inputs)).numpy()}


def _judged_tensors(inputs: Arrays) -> list[Tensor]:
    image = inputs["image"]
    first = pixels(image) if image.dtype == np.uint8 else torch.from_numpy(image).double()
    return [first, *(torch.from_numpy(value).double() for name, value in inputs.items() if name != "image")]


# --- students and teachers ---------------------------------------------------------------------------------------


def faces_of(side: int) -> Callable[[nn.Module, int, int, Options], Arrays]:
    """Probe inputs of a network that sees pictures of one size."""
    return lambda module, seed, count, options: {"image": faces(seed, count, side)}


def build_student(module: EffiSegNet, options: Options) -> onnx.ModelProto:
    return _byte_graph(ByteStudent(rewrite_student(_with_outputs(module, 1))), SIZE, "hair", "student")


def reference_student(module: EffiSegNet, inputs: Arrays, options: Options) -> Arrays:
    return {"hair": reference_hair(own_copy(module), inputs["image"])}


def build_parsing(module: EffiSegNet, options: Options) -> onnx.ModelProto:
    return _byte_graph(ByteParser(rewrite_student(_with_outputs(module, 2))), SIZE, "parsing", "parsing")


def reference_parsing(module: EffiSegNet, inputs: Arrays, options: Options) -> Arrays:
    return {"parsing": reference_logits(own_copy(module), inputs["image"]).argmax(1).astype(np.uint8)}


def _with_outputs(module: EffiSegNet, least: int) -> EffiSegNet:
    if (module.outputs > 1) != (least > 1):
        wanted, found = ("several classes", "one output") if least > 1 else ("one output", f"{module.outputs} classes")
        raise InvalidInputError(f"this student has {found}, needed is one of {wanted}: give another file")
    return module


class TeacherGraph(nn.Module):
    """image uint8 [N,S,S,3] RGB -> class ids uint8 [N,S,S], the first of equal maxima; ImageNet normalisation inside.

    parse: normalised picture [N,3,S,S] -> class logits.
    """

    scale: Tensor
    shift: Tensor

    def __init__(self, network: nn.Module, parse: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.network, self.parse = network, parse
        mean, deviation = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (MEAN, DEVIATION))
        self.register_buffer("scale", (1 / (255 * deviation)).float())
        self.register_buffer("shift", (-mean / deviation).float())

    def forward(self, image: Tensor) -> Tensor:
        x = image.permute(0, 3, 1, 2).float() * self.scale + self.shift
        return self.parse(x).argmax(1).to(torch.uint8)


def build_facexformer(module: FaceXFormer, options: Options) -> onnx.ModelProto:
    network = parse_only(own_copy(module))
    return _byte_graph(TeacherGraph(network, network), SIZE, "parsing", "facexformer")


def reference_facexformer(module: FaceXFormer, inputs: Arrays, options: Options) -> Arrays:
    return {"parsing": own_copy(module).parse(_normalised(inputs["image"])).argmax(1).to(torch.uint8).numpy()}


BISENET_SIZE = 512  # what the published weights are for


def build_bisenet(module: BiSeNet, options: Options) -> onnx.ModelProto:
    network = fold_batch_norms(exact(module)).float()
    return _byte_graph(TeacherGraph(network, network.parse), BISENET_SIZE, "parsing", "bisenet")


def reference_bisenet(module: BiSeNet, inputs: Arrays, options: Options) -> Arrays:
    return {"parsing": own_copy(module).parse(_normalised(inputs["image"])).argmax(1).to(torch.uint8).numpy()}


def _normalised(image: NDArray[np.uint8]) -> Tensor:
    return torch.from_numpy(normalized(image)).permute(0, 3, 1, 2).contiguous()


# --- scores ------------------------------------------------------------------------------------------------------


class ScoreGraph(nn.Module):
    """image uint8 [N,256,256,3] RGB -> scores float32 [N,outputs]; classifiers see [0,1], the others [-1,1]."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.signed = network, not isinstance(network, ClassifierCnn)

    def forward(self, image: Tensor) -> Tensor:
        x = image.permute(0, 3, 1, 2).float() / 255.0
        scores: Tensor = self.network((x - 0.5) / 0.5 if self.signed else x)
        return scores


def build_scores(module: nn.Module, options: Options) -> onnx.ModelProto:
    return _byte_graph(ScoreGraph(own_copy(module)), CNN_SIZE, "scores", "scores")


def reference_scores(module: nn.Module, inputs: Arrays, options: Options) -> Arrays:
    x = network_input(inputs["image"], CPU, signed=not isinstance(module, ClassifierCnn)).contiguous()
    return {"scores": exact(module)(x.double()).numpy()}


class ReaderGraph(nn.Module):
    """image uint8 [N,size,size,3] RGB -> parameters float32 [N,names], in their own units."""

    def __init__(self, network: Reader) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor) -> Tensor:
        x = image.permute(0, 3, 1, 2).float() * (1 / 127.5) - 1.0
        return self.network(x) * self.network.spread + self.network.mean


def build_reader(module: Reader, options: Options) -> onnx.ModelProto:
    network = fold_batch_norms(exact(module)).float()
    return _byte_graph(ReaderGraph(network), module.size, "parameters", "reader")


def reference_reader(module: Reader, inputs: Arrays, options: Options) -> Arrays:
    return {"parameters": own_copy(module).read(inputs["image"])}


def faces_for_reader(module: Reader, seed: int, count: int, options: Options) -> Arrays:
    return {"image": faces(seed, count, module.size)}


# --- CVAE encoder ------------------------------------------------------------------------------------------------


class EncoderGraph(nn.Module):
    """image uint8 [N,R,R,3] RGB, label float32 [N,L] -> mean, log_variance of z, float32 [N,Z] each."""

    def __init__(self, network: CvaeEncoder) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: Tensor, label: Tensor) -> tuple[Tensor, Tensor]:
        mean, log_variance = self.network(image.permute(0, 3, 1, 2).float() * (1 / 127.5) - 1.0, label)
        return mean, log_variance


def labelled_faces(module: CvaeEncoder, seed: int, count: int, options: Options) -> Arrays:
    config = module.config
    return {"image": faces(seed, count, config.resolution), "label": normal(seed + 1, count, config.label_size)}


def build_encoder(module: CvaeEncoder, options: Options) -> onnx.ModelProto:
    example = {
        name: torch.from_numpy(value) for name, value in labelled_faces(module, 0, TRACED_BATCH, options).items()
    }
    graph = EncoderGraph(own_copy(module))
    return to_onnx(graph, example, ("mean", "log_variance"), properties("cvae-encoder"))


def reference_encoder(module: CvaeEncoder, inputs: Arrays, options: Options) -> Arrays:
    mean, log_variance = exact(module)(pixels(inputs["image"]), torch.from_numpy(inputs["label"]).double())
    return {"mean": mean.numpy(), "log_variance": log_variance.numpy()}


# --- all ---------------------------------------------------------------------------------------------------------


def own_copy(module: Network) -> Network:
    """On the CPU, float32, in evaluation mode; the caller's module keeps its mode and place."""
    return copy.deepcopy(module).cpu().float().eval()


def properties(role: str, **more: str) -> dict[str, str]:
    """What a graph's metadata say of it."""
    return {"ohlora.role": role} | {f"ohlora.{name}": value for name, value in more.items()}


def _byte_graph(graph: nn.Module, side: int, output: str, role: str) -> onnx.ModelProto:
    example = torch.zeros(TRACED_BATCH, side, side, 3, dtype=torch.uint8)
    return to_onnx(graph, {"image": example}, output, properties(role))
