"""The adapter: UniFusion tokenizer, gated self-attention and ScaleU on the stock network of a base model."""

from instancediffusion.adapter.adapter import InstanceAdapter
from instancediffusion.adapter.backbones import Backbone, register_backbone
from instancediffusion.adapter.gated_attention import GatedSelfAttention
from instancediffusion.adapter.grounding import Grounding
from instancediffusion.adapter.mask_encoder import MaskEncoder
from instancediffusion.adapter.scaleu import ScaleU
from instancediffusion.adapter.unifusion import GroundingTokens, UniFusion, fourier_features

__all__ = [
    "Backbone",
    "GatedSelfAttention",
    "Grounding",
    "GroundingTokens",
    "InstanceAdapter",
    "MaskEncoder",
    "ScaleU",
    "UniFusion",
    "fourier_features",
    "register_backbone",
]
