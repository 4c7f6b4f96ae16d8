"""Geometry in numpy: boxes, strokes, run-length codes, outlines, mask points. Knows nothing of scenes or tensors."""

from .boxes import box_area, box_iou, clip_boxes, mask_box, points_box, xywh_to_xyxy, xyxy_to_xywh
from .contours import outlines
from .mask_points import NUM_MASK_POINTS, mask_points
from .polygons import fill_rings, mask_ring
from .rle import compress_runs, rle_area, rle_decode, rle_encode, rle_runs
from .strokes import NUM_SCRIBBLE_POINTS, resample_scribble, scribble_from_mask

__all__ = [
    "NUM_MASK_POINTS",
    "NUM_SCRIBBLE_POINTS",
    "box_area",
    "box_iou",
    "clip_boxes",
    "compress_runs",
    "fill_rings",
    "mask_box",
    "mask_points",
    "mask_ring",
    "outlines",
    "points_box",
    "resample_scribble",
    "rle_area",
    "rle_decode",
    "rle_encode",
    "rle_runs",
    "scribble_from_mask",
    "xywh_to_xyxy",
    "xyxy_to_xywh",
]
