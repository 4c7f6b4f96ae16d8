"""Points in mask and attributes: hand-computed, and where the published protocol gives another number."""

import numpy as np
import pytest
from PIL import Image

from instancediffusion.errors import SettingsError
from instancediffusion.evaluation.suites import run_suite
from instancediffusion.evaluation.suites.attributes import AttributesSuite, attribute_of
from instancediffusion.evaluation.suites.points import PointsSuite

from .conftest import COLOURS, SIZE, ColourClip, KnowingDetector, case, models, seen, told


def value(result, name):
    return result.made.scores[name].value


def pim(cases, found, folder):
    return run_suite(PointsSuite(), cases, folder, models(detector=KnowingDetector(found)))


def test_points_and_strokes_by_hand(pictures):
    stroke = ((0.1, 0.1), (0.1, 0.3), (0.1, 0.5), (0.1, 0.7))
    instances = [
        told("dog", 0, 0, 40, 40, point=(0.3, 0.3), stroke=stroke),
        told("cat", 50, 50, 90, 90, point=(0.6, 0.6)),
    ]
    found = {"a": [seen("dog", 0, 0, 40, 40), seen("cat", 65, 65, 90, 90)]}
    result = pim([case("a", *instances)], found, pictures("a"))
    assert value(result, "point") == 1 / 2 and value(result, "stroke") == 1 / 2
    assert result.made.scores["point"].count == 2
    # As published: both annotated middles, pixels 19 and 69, lie in the masks they are paired with.
    assert value(result, "published_point") == 1


def test_published_pim_ignores_the_class(pictures):
    instances = [told("dog", 0, 0, 40, 40, point=(0.2, 0.2), stroke=((0.1, 0.1), (0.3, 0.3)))]
    result = pim([case("a", *instances)], {"a": [seen("car", 0, 0, 40, 40)]}, pictures("a"))
    assert (value(result, "published_point"), value(result, "published_stroke")) == (1, 1)
    assert (value(result, "point"), value(result, "stroke")) == (0, 0)


def test_published_pim_ignores_confidence(pictures):
    instances = [told("dog", 0, 0, 40, 40, point=(0.2, 0.2))]
    result = pim([case("a", *instances)], {"a": [seen("dog", 0, 0, 40, 40, 0.01)]}, pictures("a"))
    assert (value(result, "published_point"), value(result, "point")) == (1, 0)


def test_published_pim_leaves_out_what_is_missed(pictures):
    instances = [told("dog", x, 0, x + 20, 20, point=((x + 10) / SIZE, 0.1)) for x in (0, 30, 60)]
    result = pim([case("a", *instances)], {"a": [seen("dog", 0, 0, 20, 20)]}, pictures("a"))
    assert (value(result, "published_point"), result.made.scores["published_point"].count) == (1, 1)
    assert (value(result, "point"), result.made.scores["point"].count) == (pytest.approx(1 / 3), 3)


def test_published_pim_pairs_masks_that_share_no_pixel(pictures):
    instances = [told("dog", 0, 0, 40, 40), told("dog", 50, 50, 90, 90)]
    found = {"a": [seen("dog", 50, 50, 90, 90), seen("dog", 92, 92, 98, 98)]}
    # The first takes the partner of largest IoU, 0 with either, that comes first: the second's own.
    assert value(pim([case("a", *instances)], found, pictures("a")), "published_point") == 0


def test_published_pim_scores_the_middle_of_the_mask_not_the_told_point(pictures):
    instances = [told("dog", 0, 0, 40, 40, point=(0.35, 0.35), stroke=((0.35, 0.35), (0.38, 0.38)))]
    result = pim([case("a", *instances)], {"a": [seen("dog", 0, 0, 30, 30)]}, pictures("a"))
    assert (value(result, "published_point"), value(result, "point"), value(result, "stroke")) == (1, 0, 0)


def test_published_pim_averages_over_pictures(pictures):
    many = [told("dog", x, 0, x + 20, 20, point=((x + 10) / SIZE, 0.1)) for x in (0, 25, 50, 75)]
    cases = [case("a", *many), case("b", told("dog", 0, 0, 20, 20, point=(0.1, 0.1)))]
    found = {"a": [seen("dog", x, 0, x + 20, 20) for x in (0, 25, 50, 75)], "b": [seen("dog", 60, 60, 90, 90)]}
    result = pim(cases, found, pictures("a", "b"))
    assert (value(result, "published_point"), value(result, "point")) == (1 / 2, 4 / 5)


def test_one_detection_serves_one_point(pictures):
    instances = [told("dog", 0, 0, 40, 40, point=(0.1, 0.1)), told("dog", 0, 0, 40, 40, point=(0.2, 0.2))]
    result = pim([case("a", *instances)], {"a": [seen("dog", 0, 0, 40, 40)]}, pictures("a"))
    assert value(result, "point") == 1 / 2


def test_what_pim_needs(pictures):
    boxes = [case("a", told("dog", 0, 0, 40, 40, mask=False))]
    with pytest.raises(SettingsError, match="no instance has a point"):
        pim(boxes, {}, pictures("a"))
    points = [case("a", told("dog", 0, 0, 40, 40, point=(0.1, 0.1)))]
    with pytest.raises(SettingsError, match="gives no masks"):
        pim(points, {"a": [seen("dog", 0, 0, 40, 40, mask=False)]}, pictures("a"))


def painted(folder, name, *blocks):
    pixels = np.full((SIZE, SIZE, 3), 128, np.uint8)
    for colour, (x0, y0, x1, y1) in blocks:
        pixels[y0:y1, x0:x1] = COLOURS[colour]
    Image.fromarray(pixels).save(folder / f"{name}.png")


def attributes(cases, found, folder):
    clip = ColourClip()
    return run_suite(AttributesSuite(), cases, folder, models(detector=KnowingDetector(found), clip=clip))


def test_published_attributes_crop_the_told_box_whatever_is_there(pictures):
    folder = pictures()
    painted(folder, "a", ("red", (0, 0, 40, 40)))  # a red patch, no car
    cases = [case("a", told("red car", 0, 0, 40, 40), categories=["car"])]
    empty = attributes(cases, {"a": []}, folder)
    assert (value(empty, "published_colour"), value(empty, "colour")) == (1, 0)
    assert "colour_found" not in empty.made.scores
    full = attributes(cases, {"a": [seen("car", 2, 2, 40, 40)]}, folder)
    assert (value(full, "published_colour"), value(full, "colour"), value(full, "colour_found")) == (1, 1, 1)
    assert value(full, "published_colour_clip") == pytest.approx(1)


def test_attributes_crop_what_was_detected(pictures):
    folder = pictures()
    painted(folder, "a", ("green", (0, 0, 60, 60)), ("red", (0, 0, 40, 40)))
    cases = [case("a", told("a red car", 0, 0, 55, 55))]
    result = attributes(cases, {"a": [seen("car", 0, 0, 40, 40)]}, folder)
    assert (value(result, "published_colour"), value(result, "colour")) == (0, 1)  # what surrounds the car is green
    off = attributes(cases, {"a": [seen("car", 20, 20, 60, 60)]}, folder)  # IoU .29: elsewhere
    assert value(off, "colour") == 0
    dog = attributes(cases, {"a": [seen("dog", 0, 0, 40, 40)]}, folder)
    assert value(dog, "colour") == 0


def test_published_attributes_average_over_pictures(pictures):
    folder = pictures()
    places = [(x, 0, x + 20, 20) for x in (0, 25, 50, 75)]
    painted(folder, "a", *(("red", place) for place in places))
    painted(folder, "b", ("blue", (0, 0, 20, 20)))
    cases = [case("a", *(told("red car", *place) for place in places)), case("b", told("red car", 0, 0, 20, 20))]
    found = {"a": [seen("car", *place) for place in places], "b": [seen("car", 0, 0, 20, 20)]}
    result = attributes(cases, found, folder)
    assert (value(result, "published_colour"), value(result, "colour")) == (1 / 2, 4 / 5)


def test_attributes_of_captions():
    assert attribute_of("a Red car") == ("colour", "red") and attribute_of("wooden_chair") == ("texture", "wooden")
    assert attribute_of("red") is None and attribute_of("a car that is red") is None
    with pytest.raises(SettingsError, match="no caption begins"):
        run_suite(AttributesSuite(), [case("a", told("car", 0, 0, 9, 9))], [[]], models())
