"""Which of two overlapping objects is in front in a picture, and the metrics of both orders of a pair together."""

from ..seen import LEAD, Overlap
from .overlapping import Pairs, overlapping_pairs, visible_masks
from .ownership import LEAST_SHARE, box_pixels, owned_overlap, told_extent, without_rim
from .pairs import Row, in_front, lower_and_larger, pair_numbers, stated_front
from .phrases import noun_phrase
from .sightings import Detector, Segmenter, Sighting, agreement, distinct, sight

__all__ = [
    "LEAD",
    "LEAST_SHARE",
    "Detector",
    "Overlap",
    "Pairs",
    "Row",
    "Segmenter",
    "Sighting",
    "agreement",
    "box_pixels",
    "distinct",
    "in_front",
    "lower_and_larger",
    "noun_phrase",
    "overlapping_pairs",
    "owned_overlap",
    "pair_numbers",
    "sight",
    "stated_front",
    "told_extent",
    "visible_masks",
    "without_rim",
]
