"""`InstanceAdapter`: everything InstanceDiffusion adds to a text-to-image network, as one component of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, cast

from diffusers import ConfigMixin, ModelMixin
from diffusers.configuration_utils import register_to_config
from huggingface_hub import ModelCard
from torch import Tensor, nn

from instancediffusion.adapter.backbones import backbone_of, core_network
from instancediffusion.adapter.card import ADAPTER_SUMMARY, ADAPTER_USAGE, PublishedWithCard, model_card
from instancediffusion.adapter.gated_attention import GatedSelfAttention
from instancediffusion.adapter.graft import GraftOwner, check_grafted, graft, graft_on
from instancediffusion.adapter.grounding import Grounding
from instancediffusion.adapter.mask_encoder import MaskEncoder
from instancediffusion.adapter.relative_values import RelativeFeatures
from instancediffusion.adapter.scaleu import ScaleU
from instancediffusion.adapter.unifusion import GroundingTokens, UniFusion
from instancediffusion.choices import SegmentationOrder
from instancediffusion.conditioning import InstanceMaskRule, LocationTensors, locations_from_scenes
from instancediffusion.conditioning.attention_mask import mask_rule
from instancediffusion.conditioning.locations import MASK_POINTS, SCRIBBLE_POINTS
from instancediffusion.errors import ModelError
from instancediffusion.scene import Scene


class InstanceAdapter(PublishedWithCard, ModelMixin, ConfigMixin):
    """UniFusion, gated self-attention and ScaleU (Wang et al., InstanceDiffusion, CVPR 2024).

    A component beside the UNet with its own weights: `graft(unet)` makes the UNet use it, `remove()` takes it
    off. The UNet keeps its parameter names, so LoRA, `load_state_dict` and saving work on it as before.
    """

    config_name = "config.json"
    _no_split_modules = ["UniFusion", "GatedSelfAttention", "ScaleU", "CellFeatures"]  # noqa: RUF012

    @register_to_config
    def __init__(
        self,
        layer_shapes: Mapping[str, Sequence[int]],
        scaleu_channels: Sequence[int] = (),
        token_dim: int = 768,
        caption_dim: int = 768,
        hidden_dim: int = 3072,
        slots: int = 30,
        frequencies: int = 16,
        scribble_points: int = 20,
        mask_points: int = 256,
        segmentation: Mapping[str, Any] | None = None,
        token_weight: float = 1.0,
        caption_shortcut: bool = False,
        relative_values: int = 0,
        derive_locations: bool = False,  # noqa: ARG002 - read from the registered config
        published_mask_points: bool = False,  # noqa: ARG002
        default_instance_mask: InstanceMaskRule = "none",  # noqa: ARG002
    ) -> None:
        """Build an adapter with new weights; `for_unet` fills in what depends on the UNet.

        Args:
            layer_shapes: by path of the UNet's transformer block, its (channels, heads).
            scaleu_channels: for each decoder step, the channels of the incoming feature; empty leaves ScaleU out.
            token_dim: D, width of the grounding tokens.
            caption_dim: width of the pooled caption features of the text encoder.
            hidden_dim: width of UniFusion's hidden layers.
            slots: padded number of instances of the published model; more instances than this work.
            frequencies: Fourier frequencies.
            scribble_points: points of a scribble.
            mask_points: points that sample a mask.
            segmentation: arguments of `MaskEncoder`; None leaves the segmentation input out.
            token_weight: attention weight of an instance's token at the start, see `UniFusion`.
            caption_shortcut: a direct way from the caption to its tokens, see `UniFusion`.
            relative_values: width of the box-relative features that the gated layers read, see `RelativeFeatures`. 0,
                nothing of the kind, as published.
            derive_locations: give instances the kinds of location their own imply, see `locations_from_scenes`.
            published_mask_points: sample mask points with the published one-pixel offset.
            default_instance_mask: attention mask rule where none is asked for.
        """
        super().__init__()
        encoder = None if segmentation is None else MaskEncoder(**segmentation)
        self.unifusion = UniFusion(
            token_dim=token_dim,
            caption_dim=caption_dim,
            hidden_dim=hidden_dim,
            slots=slots,
            frequencies=frequencies,
            scribble_points=scribble_points,
            mask_points=mask_points,
            mask_encoder=encoder,
            token_weight=token_weight,
            caption_shortcut=caption_shortcut,
        )
        self.relative = RelativeFeatures(caption_dim, relative_values) if relative_values else None
        self.layer_names = {_key(name): name for name in layer_shapes}
        self.layers = nn.ModuleDict(
            {
                _key(name): GatedSelfAttention(channels, token_dim, heads, relative_values)
                for name, (channels, heads) in layer_shapes.items()
            }
        )
        self.scaleu = nn.ModuleList(ScaleU(channels) for channels in scaleu_channels)
        self._owner = GraftOwner(self)
        # One mapping for the life of the adapter, so groundings can tell that they belong together.
        self._layers_by_path: dict[str, GatedSelfAttention] = {
            name: cast(GatedSelfAttention, self.layers[key]) for key, name in self.layer_names.items()
        }

    @classmethod
    def from_config(cls, config: Any = None, **options: Any) -> Any:
        """Build an adapter of the architecture that a config describes.

        Raises:
            ModelError: it is of an earlier version's adapter, which drew pictures of captions outside attention.
        """
        if isinstance(config, Mapping) and config.get("cell_features"):
            raise ModelError(
                "adapter: its cell_features (pictures of captions, laid beside the attention) are no part of this "
                "version; use the version that made it, or train an adapter anew"
            )
        return super().from_config(config, **options)

    @classmethod
    def for_unet(cls, unet: nn.Module, *, scaleu: bool = True, **config: Any) -> InstanceAdapter:
        """A new adapter that fits a UNet, or another base model's network (see `adapter.backbones`).

        Args:
            unet: the network.
            scaleu: with ScaleU, for networks that have skip connections.
            **config: the remaining arguments of `InstanceAdapter`.

        Raises:
            ModelError: it is of no base model that is known.
        """
        backbone, network = backbone_of(unet), core_network(unet)
        shapes = {name: backbone.shape(block) for name, block in backbone.sites(network)}
        steps = [channels for _, channels in backbone.decoder_steps(network)] if scaleu else []
        adapter: InstanceAdapter = cls(layer_shapes=shapes, scaleu_channels=steps, **config)
        return adapter

    def graft(self, unet: nn.Module) -> None:
        """Make `unet` use this adapter.

        From then on ScaleU acts in every call, and grounding when
        `cross_attention_kwargs={"grounding": adapter(...)}` is passed (of transformers, `attention_kwargs`). What the
        copy of a grafted UNet carries, without an adapter of its own, makes way.

        Args:
            unet: a stock UNet, or the network of another base model that is known (see `adapter.backbones`);
                `torch.compile`, PEFT or a data-parallel trainer may be around it.

        Raises:
            ModelError: the UNet has another shape, carries an adapter, or this adapter is grafted elsewhere.
        """
        if self.grafted:
            raise ModelError("adapter: it is grafted on a UNet already; call remove() first")
        carried = graft_on(unet)
        if carried is not None and carried.owner.adapter is None:
            carried.remove()
        scaleu = [cast(ScaleU, module) for module in self.scaleu]
        graft(core_network(unet), self._layers_by_path, scaleu, self._owner)

    def remove(self) -> None:
        """Take the graft off; the UNet is stock again. Does nothing where there is no graft."""
        unet = self._owner.unet() if self._owner.unet is not None else None
        carried = graft_on(unet)
        if carried is not None and carried.owner is self._owner:
            carried.remove()

    @property
    def grafted(self) -> bool:
        """Whether a UNet uses this adapter."""
        return self._owner.unet is not None and self.grafted_on(self._owner.unet())

    def grafted_on(self, unet: Any) -> bool:
        """Whether it is this very UNet that uses this adapter; see `graft` for what may be around it."""
        carried = graft_on(unet)
        return carried is not None and carried.owner is self._owner

    def check_on(self, unet: Any) -> None:
        """Raise `ModelError` unless this UNet uses this adapter in all its layers."""
        if not self.grafted_on(unet):
            carried = graft_on(unet)
            named = "no adapter" if carried is None else "another adapter"
            raise ModelError(
                f"unet: it carries {named}, so the locations of instances would be ignored; call adapter.graft(unet)"
            )
        check_grafted(unet, self._layers_by_path)

    def locations(self, scenes: Sequence[Scene], *, segmentation_order: SegmentationOrder = "area") -> LocationTensors:
        """`LocationTensors` of scenes, prepared as this adapter was trained, on its device.

        Args:
            scenes: one per image.
            segmentation_order: see `locations_from_scenes`.
        """
        encoder = self.unifusion.mask_encoder
        if (self.config.scribble_points, self.config.mask_points) != (SCRIBBLE_POINTS, MASK_POINTS):
            raise ModelError(
                f"adapter: it takes {self.config.scribble_points} scribble and {self.config.mask_points} mask points; "
                f"scenes are sampled to {SCRIBBLE_POINTS} and {MASK_POINTS}"
            )
        tensors = locations_from_scenes(
            scenes,
            derive=self.config.derive_locations,
            published_mask_points=self.config.published_mask_points,
            segmentation_size=64 if encoder is None else encoder.size,
            segmentation_channels=0 if encoder is None else encoder.channels,
            segmentation_order=segmentation_order,
        )
        return tensors.to(self.device)

    def tokens(self, locations: LocationTensors, captions: Tensor, kept: Tensor | None = None) -> GroundingTokens:
        """Grounding tokens; see `UniFusion.forward`."""
        result: GroundingTokens = self.unifusion(locations, captions, kept)
        return result

    def forward(
        self,
        locations: LocationTensors,
        captions: Tensor,
        *,
        instance_mask: InstanceMaskRule | None = None,
        kept: Tensor | None = None,
    ) -> Grounding:
        """Everything the UNet needs of B scenes, computed once for all steps and both branches of the guidance.

        Args:
            locations: B images of N slots.
            captions: (B, N, caption_dim) pooled caption features.
            instance_mask: attention mask rule, see `conditioning.attention_mask`; None takes the adapter's own.
            kept: (B, 4) bool, for the published inference, see `UniFusion.forward`.

        Raises:
            SettingsError: unknown attention mask rule.
        """
        rule = self.config.default_instance_mask if instance_mask is None else instance_mask
        reads_bitmaps = mask_rule(rule).reads_bitmaps
        tokens = self.tokens(locations, captions, kept)
        if self.relative is None and not reads_bitmaps:  # nothing looks at bitmaps, which are large
            locations = replace(locations, segmentations=None)
        return Grounding(
            layers=self._layers_by_path,
            keys_values={name: layer.keys_values(tokens.tokens) for name, layer in self._layers_by_path.items()},
            log_weight=tokens.log_weight,
            slot=tokens.slot,
            kind=tokens.kind,
            locations=locations,
            instance_mask=rule,
            relative=self.relative,
            captions=None if self.relative is None else captions,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        """A copy is grafted where its UNet was copied with it, and nowhere else."""
        super().__setstate__(state)
        self._owner.adopt(self)

    def _card(self, repository: str) -> ModelCard:
        facts = [
            ("parameters", f"{sum(p.numel() for p in self.parameters()) / 1e6:.0f} M"),
            ("layers", f"{len(self.layers)} gated self-attention layers, {len(self.scaleu)} decoder steps"),
            ("caption features", str(self.config.caption_dim)),
            ("instance mask", str(self.config.default_instance_mask)),
        ]
        return model_card(repository, ADAPTER_SUMMARY, ADAPTER_USAGE.format(name=repository), facts, None)

    def gates(self) -> dict[str, tuple[float, float]]:
        """By layer, tanh of the attention and feed-forward gates: how far training has opened them."""
        return {
            name: (layer.alpha_attn.tanh().item(), layer.alpha_dense.tanh().item())
            for name, layer in self._layers_by_path.items()
        }


def _key(path: str) -> str:
    """A module name for a parameter path; module names may not hold dots."""
    return path.replace(".", "-")
