"""Tiny models of transformers with random weights, saved as a user's folders are."""

import json
from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors
from transformers import (
    AutoConfig,
    BartConfig,
    BertConfig,
    BertTokenizerFast,
    Blip2Config,
    Blip2ForConditionalGeneration,
    BlipConfig,
    BlipForConditionalGeneration,
    DepthAnythingConfig,
    DepthAnythingForDepthEstimation,
    Dinov2Config,
    Florence2Config,
    Florence2ForConditionalGeneration,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    PreTrainedTokenizerFast,
    Sam2Config,
    Sam2Model,
    SamConfig,
    SamModel,
    SwinConfig,
)

MEAN, STD = [0.485, 0.456, 0.406], [0.229, 0.224, 0.225]
WORDS = "cat dog traffic light sign red apple ball a of on the coffee cup".split()


def _save(folder: Path, model, size, **preparation) -> Path:
    torch.manual_seed(0)
    model.save_pretrained(folder)
    values = {"size": size, "image_mean": MEAN, "image_std": STD, "resample": 2, "do_resize": True}
    values |= {"do_rescale": True, "do_normalize": True, "rescale_factor": 1 / 255} | preparation
    (folder / "preprocessor_config.json").write_text(json.dumps(values))
    return folder


def bert_words(folder: Path) -> BertTokenizerFast:
    """A BERT tokenizer of a few words; special tokens have the numbers that Grounding DINO's masks are built from."""
    vocabulary = ["[PAD]", "[UNK]"] + [f"[unused{n}]" for n in range(1060)]
    for number, word in ((101, "[CLS]"), (102, "[SEP]"), (103, "[MASK]"), (1012, "."), (1029, "?")):
        vocabulary[number] = word
    vocabulary[1040 : 1040 + len(WORDS)] = WORDS
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.txt").write_text("\n".join(vocabulary))
    tokenizer = BertTokenizerFast(str(folder / "vocab.txt"))
    tokenizer.save_pretrained(folder)
    return tokenizer


def grounding_dino(folder: Path) -> Path:
    torch.manual_seed(1)
    tokenizer = bert_words(folder)
    swin = SwinConfig(
        image_size=64, embed_dim=8, depths=[1, 1, 1, 1], num_heads=[1, 1, 1, 1], window_size=4,
        out_features=["stage2", "stage3", "stage4"],
    )  # fmt: skip
    bert = BertConfig(
        vocab_size=len(tokenizer), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16,
        max_position_embeddings=64,
    )  # fmt: skip
    config = GroundingDinoConfig(
        backbone_config=swin, text_config=bert, num_queries=12, encoder_layers=1, decoder_layers=2,
        encoder_ffn_dim=16, decoder_ffn_dim=16, encoder_attention_heads=2, decoder_attention_heads=2, d_model=32,
        max_text_len=16,
    )  # fmt: skip
    size = {"shortest_edge": 96, "longest_edge": 128}
    return _save(folder, GroundingDinoForObjectDetection(config), size)


def sam(folder: Path) -> Path:
    torch.manual_seed(2)
    prompt = {"hidden_size": 16, "image_size": 64, "patch_size": 8, "image_embedding_size": 8}
    config = SamConfig(
        vision_config={
            "hidden_size": 16, "output_channels": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "image_size": 64, "patch_size": 8, "window_size": 0, "global_attn_indexes": [0], "num_pos_feats": 8,
            "mlp_dim": 16,
        },
        prompt_encoder_config=prompt,
        mask_decoder_config={
            "hidden_size": 16, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 16,
        },
    )  # fmt: skip
    return _save(folder, SamModel(config), {"longest_edge": 64}, pad_size={"height": 64, "width": 64})


def sam2(folder: Path) -> Path:
    torch.manual_seed(3)
    config = Sam2Config(
        vision_config={
            "backbone_config": {
                "model_type": "sam2_hiera_det_model", "hidden_size": 8, "num_attention_heads": 1,
                "image_size": [64, 64], "blocks_per_stage": [1, 1, 2, 1], "embed_dim_per_stage": [8, 16, 32, 64],
                "num_attention_heads_per_stage": [1, 1, 1, 1], "window_size_per_stage": [4, 4, 4, 2],
                "global_attention_blocks": [3],
            },
            "backbone_channel_list": [64, 32, 16, 8], "backbone_feature_sizes": [[16, 16], [8, 8], [4, 4]],
            "fpn_hidden_size": 32,
        },
        prompt_encoder_config={"hidden_size": 32, "image_size": 64, "patch_size": 16},
        mask_decoder_config={
            "hidden_size": 32, "mlp_dim": 16, "num_attention_heads": 2, "iou_head_hidden_dim": 16,
        },
    )  # fmt: skip
    return _save(folder, Sam2Model(config), {"height": 64, "width": 64})


def _word_tokenizer(folder: Path, **special) -> PreTrainedTokenizerFast:
    """Whole words, with `<s>`, `</s>`, `<pad>` and the places of Florence-2."""
    places = [f"<loc_{n}>" for n in range(10)]
    names = ["<s>", "<pad>", "</s>", "<unk>", *places, *WORDS]
    bare = Tokenizer(models.WordLevel({name: n for n, name in enumerate(names)}, unk_token="<unk>"))
    bare.pre_tokenizer = pre_tokenizers.Whitespace()
    bare.post_processor = processors.TemplateProcessing("<s> $A </s>", special_tokens=[("<s>", 0), ("</s>", 2)])
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=bare, bos_token="<s>", eos_token="</s>", pad_token="<pad>", unk_token="<unk>",
        additional_special_tokens=places, **special,
    )  # fmt: skip
    tokenizer.save_pretrained(folder)
    return tokenizer


def talkative(model):
    """Random weights repeat the last token, which ends a text; here only words may come."""
    model.generation_config.suppress_tokens = [0, 1, *range(3, 14)]
    model.generation_config.min_new_tokens = 4
    return model


def florence(folder: Path) -> Path:
    torch.manual_seed(4)
    tokenizer = _word_tokenizer(folder)
    text = BartConfig(
        vocab_size=len(tokenizer) + 1, d_model=16, encoder_layers=1, decoder_layers=1, encoder_attention_heads=2,
        decoder_attention_heads=2, encoder_ffn_dim=16, decoder_ffn_dim=16, max_position_embeddings=600,
        bos_token_id=0, pad_token_id=1, eos_token_id=2, decoder_start_token_id=2, forced_eos_token_id=2,
    )  # fmt: skip
    config = Florence2Config(
        vision_config={
            "depths": [1, 1, 1, 1], "embed_dim": [8, 8, 8, 8], "num_heads": [1, 1, 1, 1],
            "num_groups": [1, 1, 1, 1], "window_size": 4, "projection_dim": 16,
        },
        text_config=text.to_dict(),
        image_token_id=len(tokenizer),
    )  # fmt: skip
    return _save(folder, talkative(Florence2ForConditionalGeneration(config)), {"height": 64, "width": 64})


def blip(folder: Path) -> Path:
    torch.manual_seed(5)
    tokenizer = bert_words(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = BlipConfig(
        text_config={
            **sizes, "vocab_size": len(tokenizer), "encoder_hidden_size": 16, "projection_dim": 16,
            "bos_token_id": 101, "eos_token_id": 102, "sep_token_id": 102, "pad_token_id": 0,
        },
        vision_config={**sizes, "image_size": 32, "patch_size": 16, "projection_dim": 16},
        projection_dim=16,
    )  # fmt: skip
    return _save(folder, BlipForConditionalGeneration(config), {"height": 32, "width": 32}, resample=3)


def blip2(folder: Path) -> Path:
    torch.manual_seed(6)
    tokenizer = _word_tokenizer(folder)
    sizes = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    text = AutoConfig.for_model(
        "opt", vocab_size=len(tokenizer) + 1, hidden_size=16, ffn_dim=16, num_hidden_layers=1, num_attention_heads=2,
        word_embed_proj_dim=16, max_position_embeddings=128, bos_token_id=0, pad_token_id=1, eos_token_id=2,
    )  # fmt: skip
    config = Blip2Config(
        vision_config={**sizes, "image_size": 32, "patch_size": 16},
        qformer_config={**sizes, "vocab_size": 8, "encoder_hidden_size": 16},
        text_config=text.to_dict(),
        num_query_tokens=4,
        image_token_index=len(tokenizer),
    )
    return _save(folder, Blip2ForConditionalGeneration(config), {"height": 32, "width": 32}, resample=3)


def depth_anything(folder: Path, **changes) -> Path:
    torch.manual_seed(7)
    dino = Dinov2Config(
        image_size=56, patch_size=14, hidden_size=16, num_hidden_layers=4, num_attention_heads=2, mlp_ratio=1,
        out_features=["stage1", "stage2", "stage3", "stage4"], reshape_hidden_states=False, apply_layernorm=True,
    )  # fmt: skip
    config = DepthAnythingConfig(
        backbone_config=dino, patch_size=14, reassemble_hidden_size=16, neck_hidden_sizes=[8, 8, 8, 8],
        fusion_hidden_size=8, head_hidden_size=8, **changes,
    )  # fmt: skip
    preparation = {"keep_aspect_ratio": True, "ensure_multiple_of": 14, "resample": 3}
    size = {"height": 56, "width": 56}
    return _save(folder, DepthAnythingForDepthEstimation(config), size, **preparation)


ALL = {
    "grounding-dino": grounding_dino, "sam": sam, "sam2": sam2, "florence2": florence, "blip": blip,
    "blip-2": blip2, "depth_anything": depth_anything,
}  # fmt: skip
