"""COCO annotations (instances and captions) to scenes, and scenes with their pictures to COCO annotations."""

from .coco_scene import CocoScene, coco_paths
from .reading import read_coco
from .writing import write_coco

__all__ = ["CocoScene", "coco_paths", "read_coco", "write_coco"]
