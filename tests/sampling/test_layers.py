"""Layered merging and order guidance, with denoisers whose answers are known."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from instancediffusion.sampling import (
    Branch,
    Crop,
    LayeredMerge,
    Window,
    build_scheduler,
    count_rows,
    generators_for,
    start_noise,
)

from .toys import KINDS, run_scenes

SIZE = (4, 8, 8)
STEPS = 6


class Pointwise:
    """Predicts each cell from that cell alone, so that a crop's prediction is the crop of the prediction."""

    def __init__(self) -> None:
        self.shapes: list[tuple[int, ...]] = []

    def bind(self, branches: Sequence[Branch]):
        aims = torch.tensor([(b.trajectory - 2.0 * b.swapped) * b.conditional for b in branches])[:, None, None, None]

        def predict(rows: Tensor, timestep: Tensor, step: int) -> Tensor:
            self.shapes.append(tuple(rows.shape))
            return 0.7 * rows + 0.2 * torch.sin(rows + aims) - 0.1 * aims

        return predict

    @property
    def rows(self) -> float:
        """Canvases that were computed."""
        return sum(rows * height * width / (SIZE[1] * SIZE[2]) for rows, _, height, width in self.shapes)


def run(model, scheduler, images=1, **options):
    generators = generators_for(range(images))
    return run_scenes(
        model, scheduler, start_noise(generators, SIZE), STEPS, generators=generators, **{"guidance": 2.0, **options}
    )


def layers(window, hold=1.0, weight=None):
    w = window
    held = torch.full((w.bottom - w.top, w.right - w.left), float(hold))
    if weight is None:
        weight = torch.zeros(1, *SIZE[1:])
        weight[:, w.top : w.bottom, w.left : w.right] = 1
    return LayeredMerge((1,), {1: Crop(window, held)}, torch.cat([1 - weight, weight]))


WHOLE, PART = Window(0, 0, 8, 8), Window(2, 4, 6, 8)


@pytest.mark.parametrize("name", KINDS)
def test_a_crop_is_the_part_of_the_whole_that_it_shows(pndm, name):
    """What is computed on a crop, with any scheduler, is what the whole canvas has there: noise and history, too."""
    scheduler = build_scheduler(name, pndm)
    on_all = run(Pointwise(), scheduler, merges=[layers(WHOLE)], merge_after=STEPS - 1).latents
    cropped = run(Pointwise(), scheduler, merges=[layers(PART)], merge_after=STEPS - 1).latents
    plain = run(Pointwise(), scheduler).latents
    mine = (slice(None), slice(None), slice(2, 6), slice(4, 8))
    torch.testing.assert_close(cropped[mine], on_all[mine], rtol=1e-5, atol=1e-5)
    outside = torch.ones(SIZE[1:], dtype=torch.bool)
    outside[2:6, 4:8] = False
    if name != "sa":  # after the merge it leaves out one correction
        torch.testing.assert_close(cropped[..., outside], plain[..., outside], rtol=1e-5, atol=1e-5)
    assert not torch.allclose(cropped[mine], plain[mine], atol=1e-2)


def test_what_does_not_hold_is_the_scenes_own(pndm):
    """A layer anchored everywhere is the scene, whatever its weight."""
    scheduler = build_scheduler("dpm++", pndm)
    merge = layers(PART, hold=0.0, weight=torch.full((1, *SIZE[1:]), 0.7))
    torch.testing.assert_close(
        run(Pointwise(), scheduler, merges=[merge], merge_after=3).latents, run(Pointwise(), scheduler).latents
    )


def test_crops_of_a_size_share_a_call_and_cost_their_area(pndm):
    scheduler = build_scheduler("ddim", pndm)
    merges = [
        LayeredMerge(
            (1, 2),
            {1: Crop(PART, torch.ones(4, 4)), 2: Crop(Window(0, 0, 4, 4), torch.ones(4, 4))},
            torch.ones(3, *SIZE[1:]) / 3,
        ),
        layers(Window(0, 0, 4, 8)),
    ]
    model = Pointwise()
    found = run(model, scheduler, 2, merges=merges, merge_after=2, max_rows=100)
    assert set(model.shapes[:3]) == {(4, *SIZE), (4, 4, 4, 4), (2, 4, 4, 8)}
    assert model.rows == 2 * (2 * STEPS + 2 * (0.25 + 0.25 + 0.5))
    assert model.rows == count_rows(scheduler, STEPS, 2, [0.5, 0.5], 2.0)
    # The bound is on memory, of which a crop takes its share: four of a quarter are one row.
    bounded = Pointwise()
    same = run(bounded, scheduler, 2, merges=merges, merge_after=2, max_rows=1)
    assert set(bounded.shapes) == {(1, *SIZE), (4, 4, 4, 4), (2, 4, 4, 8)}
    torch.testing.assert_close(same.latents, found.latents)


def test_an_image_in_a_batch_is_the_image_alone(pndm):
    scheduler = build_scheduler("lcm", pndm)
    where = torch.zeros(2, *SIZE[1:])
    where[1, 2:4] = 1
    merges = [layers(PART), layers(Window(0, 0, 4, 8))]
    both = run(Pointwise(), scheduler, 2, merges=merges, merge_after=2, order=(where, 1.0, 3)).latents
    generators = generators_for([1])
    alone = run_scenes(
        Pointwise(),
        scheduler,
        start_noise(generators, SIZE),
        STEPS,
        guidance=2.0,
        merges=merges[1:],
        merge_after=2,
        order=(where[1:], 1.0, 3),
        generators=generators,
    ).latents
    torch.testing.assert_close(both[1:], alone, rtol=1e-5, atol=1e-5)


def test_windows_hold_their_box_and_fit_the_network():
    for box in ((0.1, 0.2, 0.3, 0.9), (0.0, 0.0, 0.05, 0.05), (0.9, 0.4, 1.0, 1.0), (0.0, 0.0, 1.0, 1.0)):
        for size in ((32, 32), (64, 48)):
            w = Window.aligned(box, size, 8, 0.375)
            assert 0 <= w.top < w.bottom <= size[0]
            assert 0 <= w.left < w.right <= size[1]
            assert (w.bottom - w.top) % 8 == 0 == (w.right - w.left) % 8
            x0, y0, x1, y1 = w.unit(size)
            cell = 1 / min(size)
            assert x0 <= box[0] + cell
            assert y0 <= box[1] + cell
            assert x1 >= box[2] - cell
            assert y1 >= box[3] - cell
            assert min(y1 - y0, x1 - x0) >= 0.375 - 1e-6


def test_order_guidance_is_off_where_nothing_overlaps(pndm):
    scheduler = build_scheduler("euler", pndm)
    model = Pointwise()
    same = run(model, scheduler, order=(torch.zeros(1, *SIZE[1:]), 2.0, 3))
    assert torch.equal(same.latents, run(Pointwise(), scheduler).latents)
    assert {shape[0] for shape in model.shapes} == {2}  # no row is computed for it


def test_order_guidance_adds_the_difference_of_the_orders(pndm):
    """One step of DDIM is linear in the prediction, so what is added can be told from the latents."""
    scheduler = build_scheduler("ddim", pndm)
    where = torch.zeros(1, *SIZE[1:])
    where[0, 2:5, 1:6] = 0.5
    seen = {}
    for scale in (0.0, 1.0, 2.0):
        states, model = [], Pointwise()
        run(
            model,
            scheduler,
            order=(where, scale, 1),
            observe=lambda report, states=states: states.append(report.latents.clone()) and None,
        )
        seen[scale] = states[0]
        assert model.rows == count_rows(scheduler, STEPS, 0, [0], 2.0, ordered=1, order_steps=1)
    first, second = seen[1.0] - seen[0.0], seen[2.0] - seen[0.0]
    torch.testing.assert_close(second, 2 * first, rtol=1e-3, atol=1e-5)
    assert (first[..., where[0] == 0] == 0).all()
    assert (first[..., where[0] > 0] != 0).any()
