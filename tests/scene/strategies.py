"""Scenes of every kind for property tests."""

import numpy as np
from hypothesis import strategies as st
from PIL import Image

from instancediffusion.scene import Box, Instance, Mask, Point, Reference, Scene, Scribble

LOOKS = ("negative", "reference")
REFERENCE = Reference.from_image(Image.new("RGB", (3, 2), (9, 200, 30)))

captions = st.text(st.characters(codec="utf-8"), min_size=1, max_size=20).filter(str.strip)
fractions = st.one_of(
    st.floats(0, 1), st.integers(0, 512).map(lambda v: v / 512), st.integers(0, 600).map(lambda v: v / 600)
)


@st.composite
def boxes(draw):
    # Apart by more than rounding, so that a box keeps an area in any unit.
    xs, ys = (sorted((draw(fractions), draw(fractions))) for _ in range(2))
    x0, y0 = (min(low, 0.99) for low in (xs[0], ys[0]))
    return Box(x0, y0, max(xs[1], x0 + 0.005), max(ys[1], y0 + 0.005))


points = st.builds(Point, fractions, fractions)
scribbles = st.builds(Scribble, st.lists(st.tuples(fractions, fractions), min_size=2, max_size=6))


@st.composite
def masks(draw, height, width):
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    bitmap = rng.random((height, width)) < draw(st.sampled_from([0.05, 0.5, 1.0]))
    bitmap[draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))] = True
    return Mask.from_array(bitmap)


@st.composite
def scenes(draw):
    height, width = draw(st.integers(16, 70)), draw(st.integers(16, 70))
    instances = []
    for _ in range(draw(st.integers(0, 4))):
        kinds = draw(st.sets(st.sampled_from(["box", "point", "scribble", "mask"]), min_size=1))
        sources = {"box": boxes(), "point": points, "scribble": scribbles, "mask": masks(height, width)}
        places = {kind: draw(sources[kind]) for kind in sorted(kinds)}
        layer = draw(st.none() | st.integers(-100, 100))
        looks = {"negative": draw(st.none() | st.just("blur")), "reference": draw(st.none() | st.just(REFERENCE))}
        instances.append(Instance(draw(captions), **places, z_order=layer, **looks))
    negative = draw(st.none() | st.text(st.characters(codec="utf-8"), max_size=10))
    return Scene(draw(captions), tuple(instances), width, height, negative)


def alike(first, second, tolerance=1e-12):
    """Whether two scenes are equal, lengths up to rounding."""
    if (first.prompt, first.negative_prompt, first.width, first.height, len(first.instances)) != (
        second.prompt, second.negative_prompt, second.width, second.height, len(second.instances),
    ):  # fmt: skip
        return False
    return all(_alike(a, b, tolerance) for a, b in zip(first.instances, second.instances, strict=True))


def _alike(a, b, tolerance):
    if any(getattr(a, name) != getattr(b, name) for name in ("caption", "kinds", "mask", "z_order", *LOOKS)):
        return False
    return np.allclose(_lengths(a), _lengths(b), rtol=0, atol=tolerance)


def _lengths(instance):
    values = [*(instance.box.xyxy if instance.box else ())]
    values += [instance.point.x, instance.point.y] if instance.point else []
    values += [v for pair in instance.scribble.points for v in pair] if instance.scribble else []
    return values
