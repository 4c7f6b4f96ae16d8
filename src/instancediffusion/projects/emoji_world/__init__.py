"""Synthetic worlds: pictures composed of sprites in depth order, with exact ground truth for every object. No torch.

`World.load().sample(seed)` is the way in; `instancediffusion world build` fetches and renders the sprites first.
"""

from .art import ArtError, build_art, load_art
from .art_sets import ART_SETS, STYLES, ArtSet
from .backgrounds import BACKGROUNDS, Background
from .catalogue import CORE, KINDS
from .coco_export import export_coco
from .colours import COLOURS, recolour
from .kinds import Drawing, ObjectKind
from .samples import WorldInstance, WorldSample
from .sprites import SpriteBook
from .world import World
from .world_spec import WorldSpec

__all__ = [
    "ART_SETS",
    "BACKGROUNDS",
    "COLOURS",
    "CORE",
    "KINDS",
    "STYLES",
    "ArtError",
    "ArtSet",
    "Background",
    "Drawing",
    "ObjectKind",
    "SpriteBook",
    "World",
    "WorldInstance",
    "WorldSample",
    "WorldSpec",
    "build_art",
    "export_coco",
    "load_art",
    "recolour",
]
