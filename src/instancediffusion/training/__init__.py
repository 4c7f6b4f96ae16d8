"""Training a model from nothing, in stages that each continue where they stopped.

The modules are imported by name (`instancediffusion.training.stages`): each loads only the libraries it needs.
"""
