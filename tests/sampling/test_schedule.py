import pytest
from hypothesis import given
from hypothesis import strategies as st

from instancediffusion.errors import SettingsError
from instancediffusion.sampling import grounding_schedule, steps_in_fraction

# (steps, full share, decaying share) -> scales, as the published schedule function returns them.
PUBLISHED = [
    (1, 1.0, 0.0, [1]),
    (1, 0.5, 0.25, [0]),
    (4, 0.8, 0.0, [1, 1, 1, 0]),
    (4, 0.29, 0.0, [1, 0, 0, 0]),
    (4, 0.0, 1.0, [0.75, 0.5, 0.25, 0]),
    (7, 0.3, 0.3, [1, 1, 0.5, 0, 0, 0, 0]),
    (8, 0.5, 0.25, [1, 1, 1, 1, 0.5, 0, 0, 0]),
    (10, 0.3, 0.3, [1, 1, 1, 2 / 3, 1 / 3, 0, 0, 0, 0, 0]),
    (10, 0.1, 0.2, [1, 0.5, 0, 0, 0, 0, 0, 0, 0, 0]),
    (50, 0.75, 0.0, [1] * 37 + [0] * 13),
    (50, 0.29, 0.0, [1] * 14 + [0] * 36),
    (50, 0.58, 0.0, [1] * 28 + [0] * 22),
]


@pytest.mark.parametrize(("steps", "full", "decay", "expected"), PUBLISHED)
def test_published_schedules(steps, full, decay, expected):
    assert grounding_schedule(steps, full, decay_fraction=decay, rounding="published") == pytest.approx(expected)


def test_a_share_is_rounded_to_the_nearest_step():
    # 0.58 * 50 is 28.999... in floating point; truncating it lost a step.
    assert steps_in_fraction(0.58, 50) == 29
    assert steps_in_fraction(0.58, 50, "published") == 28
    assert steps_in_fraction(0.36, 25) == 9
    assert steps_in_fraction(0.5, 25) == 13
    assert steps_in_fraction(0.0, 25) == 0
    assert steps_in_fraction(2.0, 25) == 25


@given(st.integers(1, 200), st.floats(0, 1), st.floats(0, 1), st.sampled_from(["nearest", "published"]))
def test_schedule_never_rises(steps, full, decay, rounding):
    scales = grounding_schedule(steps, full, decay_fraction=decay * (1 - full), rounding=rounding)
    assert len(scales) == steps
    assert all(0 <= s <= 1 for s in scales)
    assert list(scales) == sorted(scales, reverse=True)


@pytest.mark.parametrize("share", [-0.1, 1.1, float("nan")])
def test_a_share_outside_its_range_is_named(share):
    with pytest.raises(SettingsError, match="grounding_fraction"):
        grounding_schedule(10, share)


def test_shares_that_add_up_to_more_than_the_run():
    with pytest.raises(SettingsError, match="decay"):
        grounding_schedule(10, 0.8, decay_fraction=0.3)
