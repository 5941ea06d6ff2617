"""Names of the published FaceXFormer checkpoint (`ckpts/model.pt`, entry `state_dict_backbone`) -> ours."""

from __future__ import annotations

from ohlora.training.nets.facexformer import CHANNELS, DEPTHS, STAGES, FaceXFormer, empty_network, position_index
from ohlora.training.weights.state_dicts import Layout, PublishedNetwork, Shapes

# A final norm that only a discarded pooled path ever used.
DEAD: Shapes = {"backbone.1.weight": (CHANNELS[-1],), "backbone.1.bias": (CHANNELS[-1],)}

MODULES = {
    "backbone": "backbone.0",
    "fuse": "linear_fuse",
    **{f"projections.{i}": f"linear_c.{i}.proj" for i in range(len(CHANNELS))},
    "places.matrix": "pe_layer.positional_encoding_gaussian_matrix",
    "decoder.final_norm": "face_decoder.transformer.norm_final_attn",
    "decoder.upscale": "face_decoder.output_upscaling",
}
TOKENS = {"parsing": "mask_tokens", "attributes": "attribute_token"}
HEADS = {"parsing": "output_hypernetwork_mlps", "attributes": "attribute_prediction_head"}
LAYER_PARTS = {
    "among": "self_attn",
    "read": "cross_attn_token_to_image",
    "write": "cross_attn_image_to_token",
    "among_norm": "norm1",
    "read_norm": "norm2",
    "mlp_norm": "norm3",
    "write_norm": "norm4",
}
ATTENTION_PARTS = {"query": "q_proj", "key": "k_proj", "value": "v_proj", "out": "out_proj"}


def published_name(ours: str) -> str:
    """Key of our state dict -> key of the published network."""
    for module, theirs in MODULES.items():
        if ours == module or ours.startswith(f"{module}."):
            return theirs + ours.removeprefix(module)
    kind, name, *rest = ours.removeprefix("decoder.").split(".")
    if kind == "final_read":
        return ".".join(["face_decoder.transformer.final_attn_token_to_image", ATTENTION_PARTS[name], *rest])
    if kind == "tokens":
        return f"face_decoder.{TOKENS.get(name, f'{name}_token')}.weight"
    if kind == "heads":  # linear layers stand at 0, 2, 4 of ours, between activations
        return f"face_decoder.{HEADS.get(name, f'{name}_prediction_head')}.layers.{int(rest[0]) // 2}.{rest[1]}"
    part, *inside = rest
    if part == "mlp":
        return f"face_decoder.transformer.layers.{name}.mlp.lin{int(inside[0]) // 2 + 1}.{inside[1]}"
    inside = [ATTENTION_PARTS.get(piece, piece) for piece in inside]
    return ".".join(["face_decoder.transformer.layers", name, LAYER_PARTS[part], *inside])


def _layout(model: FaceXFormer) -> Layout:
    index = position_index().float()
    constants = {
        f"backbone.0.{stage}.{block}.attn.relative_position_index": index
        for stage, depth in zip(STAGES, DEPTHS, strict=True)
        for block in range(depth)
    }
    return Layout({published_name(key): key for key in model.state_dict()}, constants)


TEACHER = PublishedNetwork(_layout, lambda state: empty_network(), DEAD)
