"""From scene values to tensors: locations, instance regions, attention masks."""

from instancediffusion.choices import INSTANCE_MASK_RULES, InstanceMaskRule
from instancediffusion.conditioning.attention_mask import AttentionMaskRule, register_mask_rule
from instancediffusion.conditioning.locations import KINDS, LocationTensors
from instancediffusion.conditioning.regions import box_regions, instance_regions
from instancediffusion.conditioning.scenes import locations_from_scenes

__all__ = [
    "INSTANCE_MASK_RULES",
    "KINDS",
    "AttentionMaskRule",
    "InstanceMaskRule",
    "LocationTensors",
    "box_regions",
    "instance_regions",
    "locations_from_scenes",
    "register_mask_rule",
]
