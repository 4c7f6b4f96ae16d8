"""The ablation: parts that are off and on again, what is left out, and its course with a real (tiny) model."""

import json

import numpy as np
import pytest
import torch
from tests.evaluation.conftest import small_world
from tests.tiny import random_locations, tiny_adapter, tiny_unet
from tests.tiny_pipeline import tiny_pipeline

from instancediffusion.adapter import InstanceAdapter
from instancediffusion.errors import SettingsError
from instancediffusion.evaluation import Seen, SeenInstance
from instancediffusion.pipeline import GenerationSettings
from instancediffusion.projects.overlap_study.ablation import COMPOSITES, OTHERS, ROWS, WHOLE, AblationRun, rows_for
from instancediffusion.projects.overlap_study.ablation_report import write_ablation
from instancediffusion.projects.overlap_study.composites import Item
from instancediffusion.projects.overlap_study.flip_and_grid import both_orders
from instancediffusion.projects.overlap_study.model_parts import PARTS, lacking, switched_off
from instancediffusion.projects.overlap_study.seen_rows import measure_seen
from instancediffusion.projects.overlap_study.study_metrics import pair_summary
from instancediffusion.runs import RunConflictError

SIDE = 64
ITEMS = (Item("disc", (0.4, 0.5), 0.5, "blue"), Item("gem", (0.62, 0.5), 0.5))
OTHER_ITEMS = (Item("arrow", (0.4, 0.3), 0.4), Item("disc", (0.6, 0.4), 0.5, "green"))


@pytest.fixture(scope="module")
def world():
    return small_world(SIDE)


@pytest.fixture(scope="module")
def cells(world):
    return [
        *both_orders(world, ITEMS, "pair/0", "flip", 3, {}, ("box", "box+mask")),
        *both_orders(world, OTHER_ITEMS, "pair/1", "flip", 4, {}, ("box", "box+mask")),
    ]


class TrueJudge:
    """Sees the world's own pictures as they are, hidden parts included, and nothing in others."""

    def __init__(self, cells) -> None:
        self._known = {}
        for cell in cells:
            labels = np.zeros((SIDE, SIDE), np.uint8)
            found = []
            for number, item in enumerate(cell.truth.instances):
                labels[item.visible] = number + 1
                found.append(SeenInstance(item.name, item.colour, item.facing, item.box, 1.0))
            wholes = np.array([item.amodal for item in cell.truth.instances])
            self._known[cell.truth.composite.tobytes()] = Seen(labels, tuple(found), None, wholes)

    def look(self, images):
        nothing = Seen(np.zeros((SIDE, SIDE), np.uint8), (), None, np.zeros((0, SIDE, SIDE), bool))
        return [self._known.get(np.asarray(image).tobytes(), nothing) for image in images]

    def describe(self):
        return {"name": "true"}


@pytest.fixture(scope="module")
def judge(cells):
    return TrueJudge(cells)


def bits(adapter):
    return {name: value.clone() for name, value in adapter.state_dict().items()}


def predicted(adapter, unet):
    locations = random_locations(2, 3)
    grounding = adapter(locations, torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(0)))
    x = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    context = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        return unet(x, 7, context, cross_attention_kwargs={"grounding": grounding}).sample


@pytest.fixture(scope="module")
def grafted():
    unet = tiny_unet()
    options = {"relative_values": 32} if "relative_values" in InstanceAdapter.__init__.__code__.co_varnames else {}
    adapter = tiny_adapter(unet, **options)
    adapter.graft(unet)
    return adapter, unet


@pytest.mark.parametrize("name", PARTS)
def test_a_part_is_off_within_the_context_and_on_again_after_it(grafted, name):
    adapter, unet = grafted
    if lacking(adapter, name) is not None:
        pytest.skip(lacking(adapter, name))
    before, kept = predicted(adapter, unet), bits(adapter)
    with switched_off(adapter, [name]):
        without = predicted(adapter, unet)
    assert not torch.allclose(without, before, atol=1e-5), name
    assert all(torch.equal(kept[key], value) for key, value in adapter.state_dict().items())
    assert torch.equal(predicted(adapter, unet), before)
    with pytest.raises(ZeroDivisionError), switched_off(adapter, [name]):
        1 / 0  # noqa: B018
    assert all(torch.equal(kept[key], value) for key, value in adapter.state_dict().items())
    assert torch.equal(predicted(adapter, unet), before)


def test_without_gates_and_scaleu_the_base_is_left(grafted):
    adapter, unet = grafted
    with switched_off(adapter, ["attention", "feed_forward", "scaleu"]):
        off = predicted(adapter, unet)
    adapter.remove()
    x = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
    context = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        base = unet(x, 7, context).sample
    adapter.graft(unet)
    assert torch.allclose(off, base, atol=1e-6)


def test_hidden_tokens_leave_nothing_of_a_caption(grafted):
    """With every token hidden the layers attend among visual tokens alone, whatever the captions say."""
    adapter, unet = grafted
    tokens = [name for name in PARTS if name.endswith("_tokens")]
    locations = random_locations(2, 3)
    found = []
    for seed in (0, 9):
        with switched_off(adapter, tokens):
            grounding = adapter(locations, torch.randn(2, 3, 32, generator=torch.Generator().manual_seed(seed)))
        x = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(1))
        context = torch.randn(2, 5, 32, generator=torch.Generator().manual_seed(2))
        with torch.no_grad():
            found.append(unet(x, 7, context, cross_attention_kwargs={"grounding": grounding}).sample)
    assert torch.allclose(found[0], found[1], atol=1e-6)


def test_what_a_model_lacks_is_named_and_not_measured():
    unet = tiny_unet()
    adapter = InstanceAdapter.for_unet(unet, scaleu=False, token_dim=24, caption_dim=32, hidden_dim=40)
    with torch.no_grad():
        for layer in adapter.layers.values():
            layer.alpha_attn.fill_(1.0)
    rows, left = rows_for(adapter, GenerationSettings(mis_fraction=0.0))
    assert set(rows) | set(left) == set(ROWS) and not set(rows) & set(left)
    assert "has none" in left["no_scaleu"] and "has none" in left["no_segmentation_tokens"]
    assert "has none" in left["only_segmentation_tokens"] and "has none" in left["no_relative_values"]
    assert "never trained" in left["no_feed_forward"] and "never trained" in left["order_in_visibility"]
    assert left["no_mis"] == left["mask_none"] == "the model's own settings"
    assert {WHOLE, "no_gates", "no_attention", "no_box_tokens", "mis_layered", "order_withheld"} <= set(rows)
    with pytest.raises(SettingsError, match="none of"):
        rows_for(adapter, GenerationSettings(), ["no_luck"])
    with pytest.raises(SettingsError, match="part"), switched_off(adapter, ["luck"]):
        pass
    assert set(rows_for(adapter, GenerationSettings(), ["no_guidance"])[0]) == {WHOLE, "no_guidance"}


@pytest.mark.parametrize("told", ["box", "box+mask"])
def test_what_is_seen_decides_the_order(cells, judge, told):
    pair = [cell for cell in cells if cell.factors["told"] == told][:2]
    seen = judge.look([cell.truth.composite for cell in pair])
    right = [measure_seen(cell, one, "x") for cell, one in zip(pair, seen, strict=True)]
    assert all(row["class"] == row["mask_iou"] == 1 and row["box_iou"] > 0.99 and row["missed"] == 0 for row in right)
    assert all(row["blend"] < 0.02 and row["visible_iou"] == row["hidden_complete"] == 1 for row in right)
    found = pair_summary(right)
    assert (found["pair_right"].value, found["flipped"].value, found["prior"].value) == (1, 1, 0)
    wrong = pair_summary([measure_seen(cell, one, "x") for cell, one in zip(pair, reversed(seen), strict=True)])
    assert (wrong["pair_right"].value, wrong["flipped"].value) == (0, 1)
    deaf = pair_summary([measure_seen(cell, seen[0], "x") for cell in pair])
    assert (deaf["pair_right"].value, deaf["prior"].value) == (0, 0.5)


def test_missed_objects_are_wrong_in_everything(cells):
    nothing = Seen(np.zeros((SIDE, SIDE), np.uint8), (), None, np.zeros((0, SIDE, SIDE), bool))
    row = measure_seen(cells[0], nothing, "x")
    assert row["missed"] == 1 and row["right"] == 0
    assert row["class"] == row["colour"] == row["box_iou"] == row["mask_iou"] == row["visible_iou"] == 0


def test_an_ablation_goes_on_where_it_was_and_reports(tmp_path, cells, judge):
    pipe = tiny_pipeline(tmp_path)
    defaults = GenerationSettings(num_inference_steps=2, scheduler="ddim", mis_fraction=0.0)
    names = ("no_gates", "no_segmentation_tokens", "order_withheld", "no_relative_values")
    rows, left = rows_for(pipe.adapter, defaults, names)
    run = AblationRun(tmp_path / "ablation", cells, rows, defaults, judge)
    run.claim({"weights": "a"})
    missing = run.missing()
    assert len(missing) == 8 * len(rows) and "order_withheld" in rows
    made: list[int] = []
    run.make(pipe, missing[:5], made.append)
    kept = bits(pipe.adapter)
    again = AblationRun(tmp_path / "ablation", cells, rows, defaults, judge)
    again.claim({"weights": "a"})
    assert again.missing() == missing[5:]
    again.make(pipe, again.missing(), made.append)
    assert sum(made) == len(missing)
    assert all(torch.equal(kept[key], value) for key, value in pipe.adapter.state_dict().items())
    # Without the order both requests of a pair are one text; what differs is the seed.
    withheld = [again.picture_path("order_withheld", cell) for cell in cells[:2]]
    assert withheld[0] != withheld[1] and withheld[0].read_bytes() != withheld[1].read_bytes()
    whole, gates = (again.picture_path(name, cells[0]).read_bytes() for name in (WHOLE, "no_gates"))
    assert whole != gates
    files = list(write_ablation(again, left, {"model": "tiny"}, lambda what, total: lambda count: None))
    report = json.loads(files[0].read_text())
    by = {(entry["settings"], entry["group"]): entry["measures"] for entry in report["entries"]}
    assert by[COMPOSITES, "told box"]["class"]["value"] == by[COMPOSITES, "told box"]["pair_right"]["value"] == 1
    assert by[OTHERS, "told box"]["class"]["value"] <= 0.5
    assert by[WHOLE, "told box"]["class"]["value"] == 0  # random weights draw nothing that this judge knows
    assert report["facts"]["not_measured"] == left and report["facts"]["missing"] == 0
    text = files[1].read_text()
    assert "## Told box+mask" in text and ROWS["no_gates"].title in text
    for name in left:
        assert ROWS[name].title in text.split("Not measured:")[1]
    with pytest.raises(RunConflictError, match="another model"):
        again.claim({"weights": "b"})
