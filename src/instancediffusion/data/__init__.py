"""Scenes with ground truth as training data: records, shards on disk, batches with locations left out at random."""

from instancediffusion.data.collate import Batch, collate, locations
from instancediffusion.data.location_dropout import SUBSETS, LocationDropout, dense_ranks, drop_locations
from instancediffusion.data.records import InstanceRecord, SceneRecord
from instancediffusion.data.shards import SceneCache, latents_name, write_latents, write_shard

__all__ = [
    "SUBSETS",
    "Batch",
    "InstanceRecord",
    "LocationDropout",
    "SceneCache",
    "SceneRecord",
    "collate",
    "dense_ranks",
    "drop_locations",
    "latents_name",
    "locations",
    "write_latents",
    "write_shard",
]
