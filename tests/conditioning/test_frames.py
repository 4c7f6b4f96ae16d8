import math

import torch

from instancediffusion.conditioning.frames import FRAME_FEATURES, OCTAVES, cell_frames

SIZE = (8, 12)


def waves(*values):
    angles = [[value * math.pi / 2 * 2**k for k in range(OCTAVES)] for value in values]
    return torch.tensor([f(a) for axis in angles for f in (math.sin, math.cos) for a in axis])


def test_a_cell_knows_its_offset_in_canvas_and_in_half_sides():
    x0, y0, x1, y1 = 0.25, 0.125, 0.75, 0.875
    found = cell_frames(torch.tensor([[[x0, y0, x1, y1]]]), torch.tensor([[True]]), SIZE)
    assert found.shape == (1, SIZE[0] * SIZE[1], 1, FRAME_FEATURES)
    for row in range(SIZE[0]):
        for column in range(SIZE[1]):
            dx, dy = (column + 0.5) / SIZE[1] - (x0 + x1) / 2, (row + 0.5) / SIZE[0] - (y0 + y1) / 2
            relative = [max(-2.0, min(2.0, d)) for d in (dx / ((x1 - x0) / 2), dy / ((y1 - y0) / 2))]
            expected = torch.cat([waves(dx, dy), torch.ones(1), waves(*relative), torch.ones(1)])
            torch.testing.assert_close(found[0, row * SIZE[1] + column, 0], expected, atol=1e-5, rtol=0)


def test_a_guessed_extent_is_marked_and_nothing_else_changes():
    extents = torch.tensor([[[0.1, 0.2, 0.5, 0.9]]])
    told, guessed = (cell_frames(extents, torch.tensor([[known]]), SIZE) for known in (True, False))
    assert torch.equal(told[..., :-1], guessed[..., :-1])
    assert (told[..., -1] == 1).all() and not guessed[..., -1].any()
