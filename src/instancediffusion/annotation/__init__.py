"""Labels for pictures that have none: tags, boxes, masks, captions and a depth order by models behind protocols."""

from .annotate import annotate
from .annotation_run import Outcome, Target, annotate_dataset
from .annotation_settings import AnnotationSettings, ModelNames
from .depth_order import layers, order_by_depth, order_by_visibility
from .protocols import Captioner, DepthEstimator, Detection, Detector, Segmenter, Stages, Tagger
from .unlabelled_pictures import PictureFolder, open_pictures

__all__ = [
    "AnnotationSettings",
    "Captioner",
    "DepthEstimator",
    "Detection",
    "Detector",
    "ModelNames",
    "Outcome",
    "PictureFolder",
    "Segmenter",
    "Stages",
    "Tagger",
    "Target",
    "annotate",
    "annotate_dataset",
    "layers",
    "open_pictures",
    "order_by_depth",
    "order_by_visibility",
]
