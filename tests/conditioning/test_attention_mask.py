"""Who may attend to whom: laws of the rules, on shapes where an exchanged axis would show."""

from dataclasses import replace

import pytest
import torch

from instancediffusion.conditioning import KINDS, LocationTensors, box_regions, instance_regions
from instancediffusion.conditioning.attention_mask import attention_bias
from instancediffusion.conditioning.regions import covered_cells

SIZE = (6, 10)  # not square
CELLS = SIZE[0] * SIZE[1]


def places(boxes, **present):
    locations = LocationTensors.empty(1, len(boxes))
    locations.used[:] = True
    locations.boxes[0] = torch.tensor(boxes)
    for kind in KINDS:
        locations.present[kind][:] = present.get(kind, kind == "box")
    return locations


def seen(rule, locations, size=SIZE):
    """Allowed pairs: cells x cells, and cells x tokens (one token a slot, then one of no instance)."""
    slots = locations.slots
    bias = (
        attention_bias(
            rule,
            locations,
            size,
            log_weight=torch.zeros(1, slots + 1),
            slot=torch.tensor([[*range(slots), -1]]),
            kind=torch.zeros(1, slots + 1, dtype=torch.long),
            dtype=torch.float32,
        )
        .joined(size[0] * size[1])
        .expand(1, 1, size[0] * size[1], -1)
    )
    allowed = bias[0, 0] > -torch.inf
    cells = size[0] * size[1]
    return allowed[:, :cells], allowed[:, cells:]


LEFT, TOP = [0.0, 0.0, 0.3, 1.0], [0.0, 0.0, 1.0, 0.5]


def test_box_region_is_indexed_row_first():
    region = box_regions(torch.tensor(LEFT), SIZE)
    assert region[:, :3].all()
    assert not region[:, 3:].any()


def test_thin_box_keeps_a_cell():
    region = box_regions(torch.tensor([0.52, 0.0, 0.521, 1.0]), SIZE)
    assert region.sum() == SIZE[0]


def test_grounding_rule_shows_tokens_inside_their_region_only():
    cells, tokens = seen("grounding", places([LEFT, TOP]))
    assert cells.all()
    assert torch.equal(tokens[:, 0].view(SIZE), box_regions(torch.tensor(LEFT), SIZE))
    assert torch.equal(tokens[:, 1].view(SIZE), box_regions(torch.tensor(TOP), SIZE))
    assert tokens[:, 2].all()


def test_full_rule_separates_instances_and_background():
    cells, _ = seen("full", places([LEFT]))
    inside = box_regions(torch.tensor(LEFT), SIZE).flatten()
    assert torch.equal(cells, inside[:, None] == inside[None, :])


def test_full_rule_is_symmetric_and_reflexive():
    cells, _ = seen("full", places([LEFT, TOP]))
    assert torch.equal(cells, cells.T)
    assert cells.diagonal().all()


def test_a_point_has_no_region_and_is_seen_everywhere():
    _, tokens = seen("grounding", places([LEFT], box=False, point=True))
    assert tokens.all()


def test_mask_takes_precedence_over_box():
    locations = places([LEFT], mask=True)
    bitmap = torch.zeros(1, 1, 60, 60, dtype=torch.uint8)
    bitmap[0, 0, 50:, 54:] = 1
    locations = LocationTensors(**{**vars(locations), "segmentations": bitmap})
    regions, known = instance_regions(locations, SIZE)
    assert known.all()
    assert regions[0, 0, 5, 9]
    assert regions.sum() == 1


def test_published_rule_exchanges_the_axes():
    """The published map writes x into rows: kept as a named rule for comparison, and only at 64x64."""
    _, tokens = seen("published", places([[0.0, 0.0, 0.5, 0.25]]), (64, 64))
    region = tokens[:, 0].view(64, 64)
    assert region[:32, :16].all()
    assert region.sum() == 32 * 16
    assert not (
        attention_bias(
            "published",
            places([LEFT]),
            (32, 32),
            log_weight=torch.zeros(1, 2),
            slot=torch.tensor([[0, -1]]),
            kind=torch.zeros(1, 2, dtype=torch.long),
            dtype=torch.float32,
        )
        .joined(32 * 32)
        .any()
    )


@pytest.mark.parametrize("rule", ["none", "grounding", "full"])
def test_every_cell_sees_itself(rule):
    locations = places([LEFT, TOP])
    bias = (
        attention_bias(
            rule,
            locations,
            SIZE,
            log_weight=torch.tensor([[0.0, 0.0, 3.0]]),
            slot=torch.tensor([[0, 1, -1]]),
            kind=torch.zeros(1, 3, dtype=torch.long),
            dtype=torch.float32,
        )
        .joined(CELLS)
        .expand(1, 1, CELLS, CELLS + 3)
    )
    assert torch.isfinite(bias[0, 0, :, :CELLS].diagonal()).all()
    assert (bias[0, 0, :, -1] == 3).all()


def test_published_rule_leaves_the_unconditional_half_unmasked():
    """The published code never masks the unconditional pass, which here shares a batch with the conditional one."""
    both = LocationTensors.cat([places([[0.0, 0.0, 0.5, 0.25]]), LocationTensors.empty(1)])
    bias = attention_bias(
        "published",
        both,
        (64, 64),
        log_weight=torch.tensor([[0.0, 3.0], [-torch.inf, 4.0]]),
        slot=torch.tensor([[0, -1], [0, -1]]),
        kind=torch.zeros(2, 2, dtype=torch.long),
        dtype=torch.float32,
    ).joined(4096)
    assert (bias[0] == -torch.inf).any()
    assert (bias[1, 0, :, :4096] == 0).all()
    assert (bias[1, 0, :, 4097] == 4).all()


def test_a_mask_that_left_no_trace_falls_back_to_the_box():
    locations = places([LEFT], mask=True)
    blank = LocationTensors(**{**vars(locations), "segmentations": torch.zeros(1, 1, 60, 60, dtype=torch.uint8)})
    regions, known = instance_regions(blank, SIZE)
    assert known.all()
    assert torch.equal(regions[0, 0], box_regions(torch.tensor(LEFT), SIZE))
    no_box = LocationTensors(
        **{**vars(blank), "present": {**blank.present, "box": torch.zeros(1, 1, dtype=torch.bool)}}
    )
    assert not instance_regions(no_box, SIZE)[1].any()


def test_covered_cells_are_those_of_all_masks_told_or_not():
    bitmaps = torch.zeros(1, 3, 8, 8, dtype=torch.uint8)
    bitmaps[0, 0, :4, :4], bitmaps[0, 1, 2:6, :4], bitmaps[0, 2] = 1, 1, 1
    empty = LocationTensors.empty(1, 3)
    used = torch.tensor([[True, True, False]])  # the third slot is padding, whatever its bitmap holds
    found = covered_cells(replace(empty, used=used, segmentations=bitmaps), (2, 2))
    assert found.tolist() == [[[1.0, 0.0], [0.5, 0.0]]]
    with pytest.raises(ValueError, match="masks of all instances"):
        covered_cells(empty, (2, 2))
