"""The base models an adapter goes on: one object each, in a file of its own; `register_backbone` adds another."""

from .backbone import BACKBONES, Backbone, backbone_of, core_network, find_backbone, register_backbone
from .prx import PRX
from .sd2 import StableDiffusion2
from .sd15 import StableDiffusion1
from .sdxl import StableDiffusionXL

for _backbone in (StableDiffusion1(), StableDiffusion2(), StableDiffusionXL(), PRX()):
    register_backbone(_backbone)

__all__ = [
    "BACKBONES",
    "Backbone",
    "backbone_of",
    "core_network",
    "find_backbone",
    "register_backbone",
]
