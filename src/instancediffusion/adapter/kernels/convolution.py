"""3x3 convolutions on a processor: F(2x2, 3x3) of Lavin and Gray (2016), section 4.1, or one matrix product.

The minimal filtering algorithm makes four results from 16 products for each pair of channels, where the definition
takes 36. What it multiplies are sums of pixels and of weights, so results differ from a direct convolution by rounding,
about as much as two direct ones in different orders do. On maps of few pixels it is not the products that take the time
but the weights' way through memory, and pixels gathered into a matrix read them once, as they are.
"""

from __future__ import annotations

from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional

LEAST_CHANNELS = 64
"""With fewer channels in or out, transforming pixels takes longer than the products that are saved."""
LEAST_PIXELS = 128
"""On fewer pixels, batch counted, the library's own way is quicker, where weights are few."""
KEPT = 8_000_000
"""Most weights of a layer that is computed by fewer products: their transformed copy, 16/9 as large, is kept. At Stable
Diffusion 1.5's size that is 0.45 GB, for the layers of the two largest maps; those of the others would take 2.6."""
TILES = 5_500_000
"""Most numbers that pixels are transformed to at a time: 22 MB, which a processor's last cache may hold."""
GATHERED = 256
"""Most pixels of a map, batch counted, that are gathered into a matrix where weights are too many to be kept twice."""


class QuickConvolution(nn.Conv2d):
    """A convolution that chooses how it is computed. It has the parameters, and the results, of its parent class.

    It is put on modules in place of their class, so it has no state of its own to be set up.
    """

    _kept: tuple[Tensor, int, Tensor] | None = None

    def _conv_forward(self, input: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        way = self._way(input, weight)
        if way == "winograd":
            return winograd(input, self._transformed(weight), bias)
        if way == "gathered":
            return gathered(input, weight, bias)
        return cast(Tensor, super()._conv_forward(input, weight, bias))

    def _way(self, input: Tensor, weight: Tensor) -> str:
        """How it is computed: `winograd`, `gathered`, or nothing for the library's own way."""
        plain = (self.kernel_size, self.stride, self.padding) == ((3, 3), (1, 1), (1, 1))
        if (
            torch.compiler.is_compiling()  # the compiler has ways of its own
            or not plain
            or self.padding_mode != "zeros"
            or (self.dilation, self.groups) != ((1, 1), 1)
            or input.dim() != 4
            or input.device.type != "cpu"
            or torch.is_grad_enabled()
            or torch.is_autocast_enabled("cpu")
            or input.dtype != weight.dtype
        ):
            return ""
        pixels = input.shape[0] * input.shape[2] * input.shape[3]
        if input.dtype == torch.bfloat16:
            return "gathered" if pixels <= GATHERED and weight.numel() > KEPT else ""
        if input.dtype != torch.float32 or min(weight.shape[:2]) < LEAST_CHANNELS:
            return ""
        if weight.numel() > KEPT or weight.is_inference():
            return "gathered" if pixels <= GATHERED else ""
        return "winograd" if pixels >= LEAST_PIXELS and input.shape[2] % 2 == input.shape[3] % 2 == 0 else ""

    def _transformed(self, weight: Tensor) -> Tensor:
        if self._kept is not None:
            # What was transformed is held on to, so that its memory cannot have become that of other weights.
            own, version, found = self._kept
            if own.data_ptr() == weight.data_ptr() and version == weight._version:
                return found
        found = winograd_weights(weight)
        self._kept = weight.detach(), weight._version, found
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name != "_kept"}


def winograd_weights(weight: Tensor) -> Tensor:
    """Transform weights (O, C, 3, 3) for `winograd`: (16, O, C)."""
    down = _transform(*weight.permute(2, 3, 0, 1).contiguous().unbind(0))
    both = [_transform(*row.unbind(0)) for row in down]
    return torch.stack([one for row in both for one in row])


def _transform(top: Tensor, middle: Tensor, bottom: Tensor) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """G g of one column of weights."""
    outer, inner = (top + bottom) / 2, middle / 2
    return top, outer + inner, outer - inner, bottom


def winograd(pixels: Tensor, transformed: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve with 3x3 weights, one pixel of zeros round the map.

    Args:
        pixels: (B, C, H, W), H and W even.
        transformed: (16, O, C) from `winograd_weights`.
        bias: (O,) or None.

    Returns:
        (B, O, H, W), channels last in memory.
    """
    batch, channels, height, width = pixels.shape
    padded = functional.pad(pixels.permute(0, 2, 3, 1), (0, 0, 1, 1, 1, 1))
    result = pixels.new_empty(batch, height, width, transformed.shape[1])
    step = 2 * max(1, TILES // (8 * batch * width * channels))
    for top in range(0, height, step):
        bottom = min(top + step, height)
        _winograd_rows(padded[:, top : bottom + 2], transformed, bias, result[:, top:bottom])
    return result.permute(0, 3, 1, 2)


def _winograd_rows(padded: Tensor, transformed: Tensor, bias: Tensor | None, result: Tensor) -> None:
    """Fill some rows (B, H, W, O) of a result, from their pixels and one more on each side (B, H + 2, W + 2, C)."""
    batch, height, width, _ = result.shape
    tiles = padded.new_empty(16, batch, height // 2, width // 2, padded.shape[-1])
    rows = [padded[:, i : i + height - 1 : 2] for i in range(4)]
    for i, row in enumerate((rows[0] - rows[2], rows[1] + rows[2], rows[2] - rows[1], rows[1] - rows[3])):
        a, b, c, d = (row[:, :, j : j + width - 1 : 2] for j in range(4))
        torch.sub(a, c, out=tiles[4 * i])
        torch.add(b, c, out=tiles[4 * i + 1])
        torch.sub(c, b, out=tiles[4 * i + 2])
        torch.sub(b, d, out=tiles[4 * i + 3])
    products = torch.bmm(tiles.flatten(1, 3), transformed.transpose(1, 2)).view(
        4, 4, batch, height // 2, width // 2, -1
    )
    inner, difference = products[1] + products[2], products[1] - products[2]
    for i, row in enumerate((inner.add_(products[0]), difference.sub_(products[3]))):
        if bias is not None:
            row[1].add_(bias)  # it is in both results of a row once
        torch.add(row[0].add_(row[1]), row[2], out=result[:, i::2, 0::2])
        torch.sub(row[1].sub_(row[2]), row[3], out=result[:, i::2, 1::2])


def gathered(pixels: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """Convolve as one matrix product; arguments as those of the definition, with one pixel of zeros round the map.

    Args:
        pixels: (B, C, H, W).
        weight: (O, C, 3, 3).
        bias: (O,) or None.

    Returns:
        (B, O, H, W), channels last in memory.
    """
    batch, _, height, width = pixels.shape
    # Two axes: with the batch as a third, the library would copy the weights for each call.
    columns = functional.unfold(pixels, 3, padding=1).transpose(1, 2).flatten(0, 1)
    rows = functional.linear(columns, weight.flatten(1), bias)
    return rows.view(batch, height, width, -1).permute(0, 3, 1, 2)
