"""The depth order of scenes: as ranks, as an order of painting; scenes with another one, or with none."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from .model import Scene


def depth_ranks(layers: Sequence[int | None]) -> list[int | None]:
    """Dense ranks of stated layers, 0 = farthest: what counts is who is nearer, not by how much."""
    rank = {layer: number for number, layer in enumerate(sorted({one for one in layers if one is not None}))}
    return [None if layer is None else rank[layer] for layer in layers]


def back_to_front(layers: Sequence[int | None], areas: Sequence[float]) -> list[int]:
    """The order of painting, as indices: first what has no layer, then by layer; among equals the larger first."""

    def key(index: int) -> tuple[bool, int, float]:
        layer = layers[index]
        return (layer is not None, layer or 0, -areas[index])

    return sorted(range(len(layers)), key=key)


def without_order(scene: Scene) -> Scene:
    """Return a scene that says nothing of who is in front."""
    return _with_layers(scene, [None] * len(scene.instances))


def ordered(scene: Scene, front: int, back: int) -> Scene:
    """Return a scene that states one instance to be nearer than another; all else stays as it is stated.

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
    layers = [None if rank is None else 2 * rank for rank in depth_ranks([one.z_order for one in scene.instances])]
    known = layers[front] if near is not None else layers[back]
    base = 2 * len({layer for layer in layers if layer is not None}) if known is None else known
    layers[front], layers[back] = base + 1, base
    return _with_layers(scene, layers)


def _with_layers(scene: Scene, layers: Sequence[int | None]) -> Scene:
    instances = tuple(replace(one, z_order=layer) for one, layer in zip(scene.instances, layers, strict=True))
    return replace(scene, instances=instances)
