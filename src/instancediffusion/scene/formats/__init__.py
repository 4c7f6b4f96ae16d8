"""File formats of scenes. Each module registers its own; a file is tried with the last first (see `registry`)."""

from . import scene_files  # noqa: I001
from .foreign import plans
from . import refused
from .foreign import label_studio, labelme
from .coco import source as coco_source
from .foreign import plain_text, xml_files

__all__ = ["coco_source", "label_studio", "labelme", "plain_text", "plans", "refused", "scene_files", "xml_files"]
