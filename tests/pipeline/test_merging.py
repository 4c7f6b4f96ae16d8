import pytest

from instancediffusion import Box, Instance, Point, Scene, Scribble
from instancediffusion.pipeline import GenerationSettings
from instancediffusion.pipeline.merging import extent, merge_rule, steps_before_merge
from instancediffusion.sampling import CropMerge, LastMerge, MeanMerge, Window
from tests.tiny_pipeline import disc

CROP = GenerationSettings(mis_merge="crop")
PUBLISHED = GenerationSettings(mis_merge="crop", mis_compat="published")


def scene(*instances):
    return Scene("x", instances, 64, 64)


def at(x0, y0, x1, y1, **more):
    return Instance("a thing", box=Box(x0, y0, x1, y1), **more)


def test_steps_are_rounded_as_asked_for():
    for fraction, ours, published in ((0.36, 18, 18), (0.58, 29, 28), (0.29, 15, 14), (1.0, 50, 50), (0.0, 0, 0)):
        settings = GenerationSettings(num_inference_steps=50, mis_fraction=fraction)
        assert steps_before_merge(settings) == ours
        assert steps_before_merge(settings.replace(mis_compat="published")) == published


def test_extent_is_that_of_the_most_telling_location():
    stroke = Scribble(((0.2, 0.5), (0.8, 0.5)))
    assert extent(Instance("a", point=Point(0.5, 0.5))) is None
    assert extent(Instance("a", point=Point(0.5, 0.5), scribble=stroke)) == (0.2, 0.5, 0.8, 0.5)
    assert extent(Instance("a", mask=disc(), scribble=stroke)) == pytest.approx((0.5, 0.5, 0.9, 0.9), abs=2 / 64)
    assert extent(Instance("a", mask=disc(), box=Box(0, 0, 1, 1))) == (0, 0, 1, 1)


def test_a_stroke_without_area_still_covers_a_row_of_cells():
    rule = merge_rule(scene(Instance("a", scribble=Scribble(((0.25, 0.5), (0.75, 0.5))))), CROP, (8, 8))
    assert rule == CropMerge(((1, Window(4, 2, 5, 6)),))


def test_nearer_and_smaller_instances_are_pasted_later():
    small, large = at(0.4, 0.4, 0.6, 0.6), at(0, 0, 1, 1)
    far, near = at(0, 0, 0.1, 0.1, z_order=-3), at(0, 0, 1, 1, z_order=2)
    for order in ((small, large, far, near), (near, far, large, small), (far, small, near, large)):
        rule = merge_rule(scene(*order), CROP, (8, 8))
        assert [order[number - 1] for number in rule.instances] == [large, small, far, near]


def test_a_point_is_not_run_alone_where_it_cannot_be_pasted():
    place = scene(Instance("a", point=Point(0.5, 0.5)), at(0, 0, 1, 1))
    assert merge_rule(place, CROP, (8, 8)).instances == (2,)
    assert merge_rule(place, GenerationSettings(), (8, 8)) == MeanMerge((1, 2))


def test_published_details():
    place = scene(at(0.3, 0.0, 0.9, 0.25, z_order=5), at(0.0, 0.5, 0.5, 1.0))
    rule = merge_rule(place, PUBLISHED, (10, 10))
    assert rule == CropMerge(((1, Window(3, 0, 9, 2)), (2, Window(0, 5, 5, 10))))
    assert merge_rule(place, PUBLISHED.replace(mis_fraction=1.0), (10, 10)) == LastMerge((1, 2))
    assert merge_rule(place, CROP.replace(mis_fraction=1.0), (10, 10)).instances == (2, 1)
