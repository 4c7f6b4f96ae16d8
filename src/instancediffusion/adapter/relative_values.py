"""Box-relative values: the value of an instance differs between visual tokens (ours; not in the paper).

In the published layer (paper, section 3.2) the value of a grounding token is the same wherever it is attended from.
Here each layer adds, to what visual token p attended to, W sum_i V_i(p) z_i(p) with z_i(p) = f(position of p relative
to i) * g(caption of i), elementwise. V_i(p) is the weight of instance i at p under the attention mask: its visibility,
or its membership under rules that ignore the depth order. W starts at zero, so weights trained without it behave as
before, and it acts under the gate of the attention: with the gate closed nothing of it is left. The sum depends on
neither x nor the time step and is made once per scene and feature map.
"""

from __future__ import annotations

from torch import Tensor, nn

from instancediffusion.conditioning import InstanceMaskRule, LocationTensors
from instancediffusion.conditioning.attention_mask import mask_rule
from instancediffusion.conditioning.relative import RELATIVE_FEATURES, relative_coordinates


class RelativeFeatures(nn.Module):
    """z_i(p) of all instances and visual tokens; depends on neither x nor the time step.

    f is a network of two hidden layers, g a linear map.
    """

    def __init__(self, caption_dim: int, width: int, hidden_dim: int = 256) -> None:
        """Build f and g.

        Args:
            caption_dim: width of the pooled caption features.
            width: F, width of z.
            hidden_dim: width of f's hidden layers.
        """
        super().__init__()
        self.width = width
        self.place = nn.Sequential(
            nn.Linear(RELATIVE_FEATURES, hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, hidden_dim),
            nn.SiLU(),
            nn.Linear(hidden_dim, width),
        )
        self.caption = nn.Linear(caption_dim, width)

    def forward(self, locations: LocationTensors, captions: Tensor, size: tuple[int, int]) -> Tensor:
        """Features of B images.

        Args:
            locations: N slots of B images.
            captions: (B, N, caption_dim) pooled caption features.
            size: (height, width) of the feature map in visual tokens; L = height * width.

        Returns:
            (B, N, L, F); zeros for unused slots.
        """
        dtype = self.caption.weight.dtype
        position = self.place(relative_coordinates(locations, size).to(dtype))
        caption = self.caption(captions.to(dtype)) * locations.used[..., None]
        return position * caption[:, :, None]

    def seen(
        self, locations: LocationTensors, captions: Tensor, size: tuple[int, int], rule: InstanceMaskRule
    ) -> Tensor:
        """sum_i V_i(p) z_i(p), the weighted sum over all instances at each visual token.

        Args:
            locations: N slots of B images.
            captions: (B, N, caption_dim) pooled caption features.
            size: (height, width) of the feature map in visual tokens; L = height * width.
            rule: the attention mask rule, whose `share` V is; of ours only `visibility` depends on the depth order.

        Returns:
            (B, L, F).
        """
        weight = mask_rule(rule).share(locations, size).flatten(2)
        weight = weight * locations.used[..., None]
        # Only what has a weight is computed: most instances cover a small part of the map.
        image, instance, token = weight.nonzero(as_tuple=True)
        dtype = self.caption.weight.dtype
        position = self.place(relative_coordinates(locations, size)[image, instance, token].to(dtype))
        each = position * self.caption(captions.to(dtype))[image, instance]
        each = each * weight[image, instance, token, None].to(each.dtype)
        batch, _, length = weight.shape
        seen = each.new_zeros(batch * length, self.width).index_add(0, image * length + token, each)
        return seen.unflatten(0, (batch, length))
