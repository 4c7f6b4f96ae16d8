"""Detectors and segmenters of random weights, whole as they would be downloaded."""

import torch
from tests.tiny_pipeline import tiny_tokenizer
from transformers import (
    BertConfig,
    BertTokenizer,
    GroundingDinoConfig,
    GroundingDinoForObjectDetection,
    GroundingDinoImageProcessor,
    Owlv2Config,
    Owlv2ForObjectDetection,
    Owlv2ImageProcessor,
    SamConfig,
    SamImageProcessor,
    SamModel,
    SwinConfig,
)


def tiny_owl(folder, seed=5):
    tokenizer = tiny_tokenizer(folder / "words")
    text = {
        "vocab_size": len(tokenizer),
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "max_position_embeddings": 16,
        "bos_token_id": len(tokenizer) - 2,
        "eos_token_id": len(tokenizer) - 1,
        "pad_token_id": 0,
    }
    vision = {
        "hidden_size": 16,
        "intermediate_size": 24,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 64,
        "patch_size": 16,
    }
    torch.manual_seed(seed)
    model = Owlv2ForObjectDetection(Owlv2Config(text_config=text, vision_config=vision, projection_dim=16))
    model.save_pretrained(folder / "owl")
    tokenizer.save_pretrained(folder / "owl")
    Owlv2ImageProcessor(size={"height": 64, "width": 64}).save_pretrained(folder / "owl")
    return folder / "owl"


def tiny_dino(folder, seed=6):
    # The network knows [CLS], [SEP], full stop and question mark by BERT's numbers.
    words = [f"[unused{n}]" for n in range(1100)]
    words[0], words[100], words[101], words[102], words[103] = "[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"
    words[1012], words[1029] = ".", "?"
    for number, letter in enumerate("abcdefghijklmnopqrstuvwxyz"):
        words[200 + number], words[300 + number] = letter, f"##{letter}"
    (folder / "dino").mkdir(parents=True)
    (folder / "dino" / "vocab.txt").write_text("\n".join(words))
    tokenizer = BertTokenizer(str(folder / "dino" / "vocab.txt"))
    backbone = SwinConfig(
        image_size=64,
        patch_size=4,
        embed_dim=8,
        depths=[1, 1, 1, 1],
        num_heads=[1, 1, 2, 2],
        window_size=4,
        out_indices=[2, 3, 4],
    )
    text = BertConfig(
        vocab_size=len(words), hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=24
    )
    torch.manual_seed(seed)
    config = GroundingDinoConfig(
        backbone_config=backbone,
        text_config=text,
        num_queries=12,
        d_model=32,
        encoder_layers=1,
        decoder_layers=2,
        encoder_attention_heads=2,
        decoder_attention_heads=2,
        encoder_ffn_dim=24,
        decoder_ffn_dim=24,
        disable_custom_kernels=True,
    )
    GroundingDinoForObjectDetection(config).save_pretrained(folder / "dino")
    tokenizer.save_pretrained(folder / "dino")
    size = {"shortest_edge": 96, "longest_edge": 144}
    GroundingDinoImageProcessor(size=size).save_pretrained(folder / "dino")
    return folder / "dino"


def tiny_sam(folder, seed=7):
    shared = {"hidden_size": 16}
    torch.manual_seed(seed)
    config = SamConfig(
        vision_config={
            "hidden_size": 16,
            "output_channels": 16,
            "num_hidden_layers": 1,
            "num_attention_heads": 2,
            "image_size": 64,
            "patch_size": 16,
            "window_size": 2,
            "global_attn_indexes": [0],
            "num_pos_feats": 8,
            "mlp_dim": 24,
        },
        prompt_encoder_config={**shared, "image_size": 64, "patch_size": 16, "mask_input_channels": 4},
        mask_decoder_config={**shared, "mlp_dim": 24, "num_attention_heads": 2, "iou_head_hidden_dim": 16},
    )
    SamModel(config).save_pretrained(folder / "sam")
    processor = SamImageProcessor(
        size={"longest_edge": 64},
        pad_size={"height": 64, "width": 64},
        mask_size={"longest_edge": 16},
        mask_pad_size={"height": 16, "width": 16},
    )
    processor.save_pretrained(folder / "sam")
    return folder / "sam"
