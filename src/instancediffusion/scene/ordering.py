"""Scenes with another depth order, or with none."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from .model import Scene


def without_order(scene: Scene) -> Scene:
    """Return a scene that says nothing of who is in front."""
    return _with_layers(scene, [None] * len(scene.instances))


def ordered(scene: Scene, front: int, back: int) -> Scene:
    """Return a scene in which one instance is told to be nearer than another; all else stays as it was told.

    Where the scene states different layers of the two, these are given to them as asked. Where it does not, the
    farther one keeps the layer that is stated of either, and the nearer one has a layer of its own just above; if
    none is stated, both come to lie above all that is. So both orders of a pair differ in nothing but this pair.

    Args:
        scene: any.
        front: index of the instance that is to be nearer.
        back: index of the other one.
    """
    near, far = scene.instances[front].z_order, scene.instances[back].z_order
    if near is not None and far is not None and near != far:
        layers: list[int | None] = [one.z_order for one in scene.instances]
        layers[front], layers[back] = max(near, far), min(near, far)
        return _with_layers(scene, layers)
    stated = sorted({one.z_order for one in scene.instances if one.z_order is not None})
    rank: Mapping[int | None, int] = {layer: 2 * number for number, layer in enumerate(stated)}
    layers = [rank.get(one.z_order) for one in scene.instances]
    base = rank.get(near if near is not None else far, 2 * len(stated))
    layers[front], layers[back] = base + 1, base
    return _with_layers(scene, layers)


def _with_layers(scene: Scene, layers: Sequence[int | None]) -> Scene:
    instances = tuple(replace(one, z_order=layer) for one, layer in zip(scene.instances, layers, strict=True))
    return replace(scene, instances=instances)
