"""Components of diffusers under the names of Stable Diffusion's training code, as files of one model have them.

Written from the naming scheme itself, in the opposite direction to the package, which uses diffusers' converters.
"""

import re

import torch

_RESNET = {
    "norm1": "in_layers.0",
    "conv1": "in_layers.2",
    "time_emb_proj": "emb_layers.1",
    "norm2": "out_layers.0",
    "conv2": "out_layers.3",
    "conv_shortcut": "skip_connection",
}
_ENDS = {
    "time_embedding.linear_1": "time_embed.0",
    "time_embedding.linear_2": "time_embed.2",
    "add_embedding.linear_1": "label_emb.0.0",
    "add_embedding.linear_2": "label_emb.0.2",
    "conv_in": "input_blocks.0.0",
    "conv_norm_out": "out.0",
    "conv_out": "out.2",
}
_OPEN_CLIP = {
    "layer_norm1": "ln_1",
    "layer_norm2": "ln_2",
    "mlp.fc1": "mlp.c_fc",
    "mlp.fc2": "mlp.c_proj",
    "self_attn.out_proj": "attn.out_proj",
}


def unet_names(unet):
    """The tensors of a UNet, without a prefix."""
    count = unet.config.layers_per_block
    found = {}
    for name, value in unet.state_dict().items():
        place, _, tail = name.rpartition(".")
        if place in _ENDS:
            found[f"{_ENDS[place]}.{tail}"] = value
            continue
        block = re.match(
            r"(down_blocks|up_blocks)\.(\d+)\.(resnets|attentions|downsamplers|upsamplers)\.(\d+)\.(.+)", name
        )
        if block is None:  # the middle
            kind, number, rest = re.fullmatch(r"mid_block\.(resnets|attentions)\.(\d)\.(.+)", name).groups()
            found[f"middle_block.{1 if kind == 'attentions' else 2 * int(number)}.{_inner(kind, rest)}"] = value
            continue
        side, level, kind, number, rest = block.groups()
        level, number = int(level), int(number)
        if kind == "downsamplers":
            new = f"input_blocks.{level * (count + 1) + count + 1}.0.op.{rest.removeprefix('conv.')}"
        elif kind == "upsamplers":
            attended = unet.config.up_block_types[level] == "CrossAttnUpBlock2D"
            new = f"output_blocks.{level * (count + 1) + count}.{2 if attended else 1}.{rest}"
        else:
            index = level * (count + 1) + number
            start = f"input_blocks.{index + 1}" if side == "down_blocks" else f"output_blocks.{index}"
            new = f"{start}.{1 if kind == 'attentions' else 0}.{_inner(kind, rest)}"
        found[new] = value
    return found


def _inner(kind, rest):
    if kind == "attentions":
        return rest
    part, tail = rest.rsplit(".", 1)
    return f"{_RESNET[part]}.{tail}"


def vae_names(vae):
    """The tensors of an autoencoder, without a prefix."""
    levels = len(vae.config.block_out_channels)
    found = {}
    for name, value in vae.state_dict().items():
        new = name.replace("conv_norm_out", "norm_out").replace("conv_shortcut", "nin_shortcut")
        new = re.sub(r"down_blocks\.(\d+)\.resnets", r"down.\1.block", new)
        new = re.sub(r"down_blocks\.(\d+)\.downsamplers\.0", r"down.\1.downsample", new)
        new = re.sub(r"up_blocks\.(\d+)\.resnets", lambda m: f"up.{levels - 1 - int(m[1])}.block", new)
        new = re.sub(r"up_blocks\.(\d+)\.upsamplers\.0", lambda m: f"up.{levels - 1 - int(m[1])}.upsample", new)
        new = re.sub(r"mid_block\.resnets\.(\d)", lambda m: f"mid.block_{int(m[1]) + 1}", new)
        attention = re.search(r"mid_block\.attentions\.0\.(group_norm|to_q|to_k|to_v|to_out\.0)\.(.+)", new)
        if attention:
            part = {"group_norm": "norm", "to_q": "q", "to_k": "k", "to_v": "v", "to_out.0": "proj_out"}[attention[1]]
            new = new[: attention.start()] + f"mid.attn_1.{part}.{attention[2]}"
            value = value[..., None, None] if value.dim() == 2 else value
        found[new] = value
    return found


def _text(model):
    return {name.removeprefix("text_model."): value for name, value in model.state_dict().items()}


def open_clip_names(model, unused_layer=False):
    """The tensors of a text model as OpenCLIP names them; `unused_layer` adds a last one that nothing reads."""
    found, parts = {}, {}
    for name, value in _text(model).items():
        if layer := re.fullmatch(r"encoder\.layers\.(\d+)\.(.+)\.(weight|bias)", name):
            number, part, tail = layer.groups()
            if projection := re.fullmatch(r"self_attn\.([qkv])_proj", part):
                parts.setdefault((number, tail), {})[projection[1]] = value
            else:
                found[f"transformer.resblocks.{number}.{_OPEN_CLIP[part]}.{tail}"] = value
        elif name == "text_projection.weight":
            found["text_projection"] = value.T.contiguous()
        else:
            new = {
                "embeddings.token_embedding.weight": "token_embedding.weight",
                "embeddings.position_embedding.weight": "positional_embedding",
                "final_layer_norm.weight": "ln_final.weight",
                "final_layer_norm.bias": "ln_final.bias",
            }.get(name)
            if new:
                found[new] = value
    for (number, tail), three in parts.items():
        found[f"transformer.resblocks.{number}.attn.in_proj_{tail}"] = torch.cat([three[part] for part in "qkv"])
    if unused_layer:
        last = f"transformer.resblocks.{model.config.num_hidden_layers - 1}."
        extra = f"transformer.resblocks.{model.config.num_hidden_layers}."
        found |= {extra + name.removeprefix(last): value + 1 for name, value in found.items() if name.startswith(last)}
        found["text_projection"] = torch.eye(model.config.hidden_size)
    found["logit_scale"] = torch.tensor(1.0)
    return found


def single_file(unet, vae, text_encoder, text_encoder_2=None, *, open_clip=False):
    """The tensors of a whole model: 1.x, 2.x (`open_clip`) or XL (with a second text encoder)."""
    if text_encoder_2 is not None:
        first = _prefixed("conditioner.embedders.0.transformer.text_model.", _text(text_encoder))
        texts = first | _prefixed("conditioner.embedders.1.model.", open_clip_names(text_encoder_2))
    elif open_clip:
        texts = _prefixed("cond_stage_model.model.", open_clip_names(text_encoder, unused_layer=True))
    else:
        texts = _prefixed("cond_stage_model.transformer.text_model.", _text(text_encoder))
        texts["cond_stage_model.transformer.text_model.embeddings.position_ids"] = torch.arange(8)[None]
    parts = [("model.diffusion_model.", unet_names(unet)), ("first_stage_model.", vae_names(vae))]
    named = {name: value for prefix, tensors in parts for name, value in _prefixed(prefix, tensors).items()} | texts
    return {name: value.detach().clone().contiguous() for name, value in named.items()}


def _prefixed(prefix, tensors):
    return {prefix + name: value for name, value in tensors.items()}
