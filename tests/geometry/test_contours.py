"""Outlines against scikit-image, an independent library: same contours, same order, same first vertex."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis.extra import numpy as hnp
from skimage import measure

from instancediffusion.geometry import fill_rings, outlines

bitmaps = hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=2, max_side=16))


@pytest.mark.parametrize(("at_background", "level"), [(True, 0.0), (False, 0.5)])
@given(bitmap=bitmaps)
def test_agrees_with_scikit_image(at_background, level, bitmap):
    found = outlines(bitmap, at_background=at_background)
    expected = measure.find_contours(bitmap.astype(float), level)
    assert len(found) == len(expected)
    for ours, theirs in zip(found, expected, strict=True):
        np.testing.assert_array_equal(ours, theirs)


@given(bitmap=bitmaps)
def test_filling_the_outlines_gives_the_bitmap_back(bitmap):
    rings = [curve[:-1, ::-1] - 0.5 for curve in outlines(np.pad(bitmap, 1), at_background=False)]
    assert (fill_rings(rings, bitmap.shape) == bitmap).all()
