"""The pipeline: scenes in, pictures out."""

from instancediffusion.pipeline.output import GenerationOutput
from instancediffusion.pipeline.pipeline import InstanceDiffusionPipeline
from instancediffusion.pipeline.refiner import load_refiner
from instancediffusion.settings import GenerationSettings

__all__ = ["GenerationOutput", "GenerationSettings", "InstanceDiffusionPipeline", "load_refiner"]
