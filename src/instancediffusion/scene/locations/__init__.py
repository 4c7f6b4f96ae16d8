"""The kinds of location, one class each: box, point, scribble, mask; `register_location` adds another."""

from .box import Box, looks_like_corners, read_box, read_box_xywh
from .kind import LOCATIONS, Location, TokenLocation, register_location
from .mask import Mask, read_polygons, read_rle, read_runs
from .point import Point, read_point
from .scribble import Scribble, read_scribble

for _kind in (Box, Point, Scribble, Mask):
    register_location(_kind)

__all__ = [
    "LOCATIONS",
    "Box",
    "Location",
    "Mask",
    "Point",
    "Scribble",
    "TokenLocation",
    "looks_like_corners",
    "read_box",
    "read_box_xywh",
    "read_point",
    "read_polygons",
    "read_rle",
    "read_runs",
    "read_scribble",
    "register_location",
]
