"""Options of a request: read, bounded, costed; presets and grids."""

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from instancediffusion.errors import SettingsError
from instancediffusion.pipeline import GenerationSettings
from instancediffusion.presets import PRESETS
from instancediffusion.studio import controls
from instancediffusion.studio.bounds import Limits, RefusedError
from instancediffusion.studio.cost import rows_of_steps
from instancediffusion.studio.grids import ORDER, ORDERS, swapped
from instancediffusion.studio.page_requests import plan_of
from instancediffusion.studio.store import exact_seed
from tests.tiny_pipeline import scene_of

DEFAULTS = GenerationSettings(num_inference_steps=20, guidance_scale=3.0, mis_fraction=0.0)
LIMITS = Limits()


def plan(options=None, count=4, limits=LIMITS):
    return plan_of(scene_of(count), options, DEFAULTS, limits)


def test_nothing_asked_for_is_one_picture_with_the_models_settings():
    made = plan()
    assert made.pictures == 1
    assert made.cells[0].settings == DEFAULTS
    assert made.grid is None
    assert 0 <= made.seeds[0] < 2**32


@pytest.mark.parametrize("seed", [2**53 - 1, 2**53 + 1, 2**64 - 1])
def test_seeds_of_64_bits_come_and_go_exactly(seed):
    """A picture of seed 9007199254740993 once opened with the seed ...992."""
    assert plan({"seed": seed}).seeds == plan({"seed": str(seed)}).seeds == (seed,)
    shown = json.loads(json.dumps(exact_seed(seed)), parse_int=float)  # as JavaScript reads numbers
    assert int(shown) == seed


def test_the_page_keeps_every_digit_of_a_seed():
    node = shutil.which("node")
    if node is None:
        pytest.skip("needs node")
    page = Path(controls.__file__).parent / "editor" / "settings.js"
    texts = ["7", " 12 ", "9007199254740993", "18446744073709551615", "99999999999999999999999", "-3", ""]
    program = (
        f"import({json.dumps(page.as_uri())})"
        f".then((page) => console.log(JSON.stringify({json.dumps(texts)}.map(page.exactSeed))))"
    )
    shown = subprocess.run([node, "-e", program], capture_output=True, text=True, check=True).stdout
    assert json.loads(shown) == [7, 12, "9007199254740993", str(2**64 - 1), str(2**64 - 1), 0, 0]


def test_a_preset_goes_below_what_is_set_by_hand():
    made = plan({"preset": "fast", "settings": {"guidance_scale": 5}})
    settings = made.cells[0].settings
    assert settings.num_inference_steps < DEFAULTS.num_inference_steps
    assert settings.guidance_scale == 5
    by_hand = plan({"preset": "fast", "settings": {"num_inference_steps": 33}})
    assert by_hand.cells[0].settings.num_inference_steps == 33


@given(st.sampled_from(controls.preset_names()), st.integers(1, 100), st.floats(0, 1), st.floats(0, 0.5))
def test_presets_are_settings_of_any_model(name, steps, mis, decay):
    defaults = GenerationSettings(
        num_inference_steps=steps, mis_fraction=mis, grounding_fraction=0.5, grounding_decay_fraction=decay
    )
    made = plan_of(scene_of(1), {"preset": name}, defaults, LIMITS).cells[0].settings
    assert made == (defaults if name == controls.OWN else defaults.replace(**PRESETS[name].on(vars(defaults))))


def test_every_control_is_a_setting_whose_choices_it_takes():
    for entry in controls.described(DEFAULTS):
        values = [choice["value"] for choice in entry.get("choices", [])] or [entry["low"], entry["high"]]
        for value in values:
            # A whole-number setting is sent as a whole number by the page.
            DEFAULTS.replace(**{entry["name"]: value})
        assert entry["help"].endswith(".")
        assert entry["paper"]


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ([], "options"),
        ("x", "options"),
        ({"colour": 1}, "'colour'"),
        ({"preset": "best"}, "preset"),
        ({"preset": None}, "preset"),
        ({"preset": ["fast"]}, "preset"),
        ({"settings": []}, "settings"),
        ({"settings": 3}, "settings"),
        ({"settings": {"stepps": 3}}, "stepps"),
        ({"settings": {"refiner_strength": 0.5}}, "refiner_strength"),
        ({"settings": {"max_batch_rows": 10_000}}, "max_batch_rows"),
        ({"settings": {"num_inference_steps": 1.5}}, "num_inference_steps"),
        ({"settings": {"num_inference_steps": 201}}, "num_inference_steps"),
        ({"settings": {"guidance_scale": float("nan")}}, "guidance_scale"),
        ({"settings": {"mis_merge": "sum"}}, "mis_merge"),
        ({"settings": {"negative_prompt": "x" * 5000}}, "negative_prompt"),
        ({"pictures": 0}, "pictures"),
        ({"pictures": 17}, "pictures"),
        ({"pictures": True}, "pictures"),
        ({"pictures": "3"}, "pictures"),
        ({"seed": -1}, "seed"),
        ({"seed": 2**64}, "seed"),
        ({"seed": "7.5"}, "seed"),
        ({"seed": "9" * 21}, "seed"),
        ({"seed": 1.0}, "seed"),
        ({"grid": {"z": 1}}, "grid"),
        ({"grid": {"x": "mis_fraction"}}, "grid.x"),
        ({"grid": {"x": {"setting": "seed", "values": [1]}}}, "grid.x"),
        ({"grid": {"x": {"setting": "mis_fraction", "values": []}}}, "grid.x"),
        ({"grid": {"x": {"setting": "mis_fraction", "values": [0, 0]}}}, "grid.x"),
        ({"grid": {"x": {"setting": "mis_fraction", "values": [[0]]}}}, "grid.x"),
        ({"grid": {"x": {"setting": "mis_fraction", "values": [2]}}}, "mis_fraction"),
        ({"grid": {axis: {"setting": "mis_fraction", "values": [0.1]} for axis in "xy"}}, "grid"),
        ({"pictures": 4, "grid": {"x": {"setting": "guidance_scale", "values": [1, 2, 3, 4, 5]}}}, "pictures"),
    ],
)  # fmt: skip
def test_what_cannot_be_used_is_named(options, named):
    with pytest.raises((SettingsError, RefusedError), match=named):
        plan(options)


def test_the_work_of_a_request_is_bounded():
    with pytest.raises(RefusedError, match="network passes"):
        plan({"pictures": 4}, limits=Limits(rows=100))


def test_rows_are_those_the_sampler_counts():
    from instancediffusion.sampling import build_scheduler, count_rows
    from tests.tiny_pipeline import tiny_scheduler

    settings = GenerationSettings(num_inference_steps=10, scheduler="ddim", mis_fraction=0.3, guidance_scale=2)
    scheduler = build_scheduler("ddim", tiny_scheduler())
    assert sum(rows_of_steps(scene_of(4), settings)) == count_rows(scheduler, 10, 3, [4], 2)
    free = settings.replace(guidance_scale=1)
    assert sum(rows_of_steps(scene_of(4), free)) == count_rows(scheduler, 10, 3, [4], 1)


def test_swapping_twice_is_doing_nothing():
    scene = scene_of(4)
    assert swapped(swapped(scene)) == scene
    assert [i.z_order for i in swapped(scene).instances] == [None, None, -1, 0]


def test_a_grid_has_every_pair_of_values_once():
    made = plan({"grid": {"x": {"setting": "guidance_scale", "values": [1, 4]}, "y": {"setting": ORDER}}, "seed": 3})
    assert len(made.cells) == 4
    assert {(cell.column, cell.row) for cell in made.cells} == {(0, 0), (1, 0), (0, 1), (1, 1)}
    assert len({cell.name for cell in made.cells}) == 4
    for cell in made.cells:
        assert cell.settings.guidance_scale == (1, 4)[cell.column]
        assert cell.scene == (scene_of(4) if cell.row == 0 else swapped(scene_of(4)))
    assert made.grid["y"]["values"] == list(ORDERS)


def test_an_order_that_is_not_stated_cannot_be_swapped():
    with pytest.raises(SettingsError, match="no two objects"):
        plan({"grid": {"x": {"setting": ORDER}}}, count=2)
