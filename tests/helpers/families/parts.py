"""Autoencoders, tokenizers and text encoders of families, a few channels wide."""

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import transformers
from diffusers import (
    AutoencoderDC,
    AutoencoderKL,
    AutoencoderKLFlux2,
    AutoencoderKLLTXVideo,
    AutoencoderKLQwenImage,
    AutoencoderKLWan,
    VQModel,
)
from tokenizers.pre_tokenizers import ByteLevel
from tokenizers.processors import TemplateProcessing
from transformers import (
    BertConfig,
    BertModel,
    BertTokenizer,
    GemmaTokenizer,
    Mistral3Config,
    Mistral3ForConditionalGeneration,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen3VLConfig,
    Qwen3VLForConditionalGeneration,
    Qwen3VLModel,
    UMT5Config,
    UMT5EncoderModel,
)

WIDTH = 16
TEMPLATE = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n"
    "{% if m.content is string %}{{ m.content }}{% else %}{{ m.content[0].text }}{% endif %}"
    "<|im_end|>\n{% endfor %}"
)
MARKS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|image_pad|>", "<|vision_start|>", "<|vision_end|>")
TEXT = {
    "hidden_size": WIDTH,
    "intermediate_size": 2 * WIDTH,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "head_dim": 8,
}
VISION = {"depth": 1, "hidden_size": WIDTH, "intermediate_size": WIDTH, "num_heads": 2, "out_hidden_size": WIDTH}
NOISE = {"beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}


def kl(channels: int, blocks: tuple[int, ...] = (4, 8), **options: Any) -> AutoencoderKL:
    """AutoencoderKL; images are ``2 ** (len(blocks) - 1)`` times as large as latents."""
    return AutoencoderKL(**_coder(channels, blocks), **options)


def _coder(channels: int, blocks: tuple[int, ...]) -> dict[str, Any]:
    return {
        "sample_size": 16,
        "block_out_channels": blocks,
        "down_block_types": ("DownEncoderBlock2D",) * len(blocks),
        "up_block_types": ("UpDecoderBlock2D",) * len(blocks),
        "layers_per_block": 1,
        "latent_channels": channels,
        "norm_num_groups": 2,
    }


def flux2_kl() -> AutoencoderKLFlux2:
    """The autoencoder of FLUX.2, with statistics of patches that are not trivial."""
    autoencoder = AutoencoderKLFlux2(**_coder(2, (4, 8)), use_quant_conv=False, use_post_quant_conv=False)
    autoencoder.bn.running_mean.normal_()
    autoencoder.bn.running_var.uniform_(0.5, 2)
    return autoencoder


def qwen_kl() -> AutoencoderKLQwenImage:
    """The autoencoder of Qwen-Image, for videos, with means and spreads by channel."""
    return AutoencoderKLQwenImage(
        base_dim=8,
        z_dim=4,
        dim_mult=[1, 2],
        num_res_blocks=1,
        temperal_downsample=[False],
        latents_mean=[0.1, -0.2, 0.3, 0.0],
        latents_std=[1.3, 0.7, 1.1, 0.9],
    )


def dc() -> AutoencoderDC:
    """The deep-compression autoencoder of Sana."""
    blocks = ("ResBlock", "EfficientViTBlock")
    return AutoencoderDC(
        latent_channels=4,
        attention_head_dim=2,
        encoder_block_types=blocks,
        decoder_block_types=blocks,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        encoder_qkv_multiscales=((), (5,)),
        decoder_qkv_multiscales=((), (5,)),
        encoder_layers_per_block=(1, 1),
        decoder_layers_per_block=(1, 1),
        downsample_block_type="conv",
        upsample_block_type="interpolate",
        scaling_factor=0.41407,
    )


def movq() -> VQModel:
    """The autoencoder of Kandinsky, whose decoder is conditioned on the latents."""
    return VQModel(
        block_out_channels=(32, 32),
        down_block_types=("DownEncoderBlock2D", "AttnDownEncoderBlock2D"),
        up_block_types=("AttnUpDecoderBlock2D", "UpDecoderBlock2D"),
        latent_channels=4,
        norm_type="spatial",
        num_vq_embeddings=12,
        vq_embed_dim=4,
    )


def _joined(letters: Sequence[str], space: str, words: Sequence[str]) -> dict[str, Any]:
    """The arguments of a tokenizer of ``letters`` for which a space and one of ``words`` are one token."""
    spelt = [f"{space}{word}" for word in words if all(letter in letters for letter in word)]
    pairs = dict.fromkeys(pair for word in spelt for pair in zip(accumulate(word), word[1:], strict=False))
    tokens = dict.fromkeys([*letters, *map("".join, pairs)])
    return {"vocab": {token: index for index, token in enumerate(tokens)}, "merges": list(pairs)}


def byte_tokenizer(places: int = 512, words: Sequence[str] = ()) -> Qwen2Tokenizer:
    """Bytes, and ``words`` after a space, as tokens, with the marks and the template of Qwen."""
    tokenizer = Qwen2Tokenizer(**_joined(sorted(ByteLevel.alphabet()), "Ġ", words), model_max_length=places)
    tokenizer.add_special_tokens({"additional_special_tokens": list(MARKS[1:])})
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def glm_tokenizer() -> Qwen2Tokenizer:
    """Bytes as tokens after a mark."""
    return _marked(byte_tokenizer(), MARKS[1])


def _marked(tokenizer: Any, mark: str) -> Any:
    number = tokenizer.convert_tokens_to_ids(mark)
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single=f"{mark} $A", special_tokens=[(mark, number)]
    )
    return tokenizer


def gemma_tokenizer(words: Sequence[str] = ()) -> GemmaTokenizer:
    """Letters, and ``words`` after a space, as tokens after a mark."""
    marks = ["<pad>", "<eos>", "<bos>", "<unk>", "<mask>", "▁"]
    letters = [chr(code) for code in range(33, 127)]
    return _marked(GemmaTokenizer(**_joined([*marks, *letters], "▁", words), model_max_length=300), "<bos>")


def bert() -> tuple[BertModel, BertTokenizer]:
    """A BERT and its tokenizer of single letters."""
    marks = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"]
    letters = [chr(code) for code in range(33, 127)]
    vocabulary = {
        token: index for index, token in enumerate([*marks, *letters, *(f"##{letter}" for letter in letters)])
    }
    tokenizer = BertTokenizer(vocab=vocabulary, model_max_length=77)
    size = {key: TEXT[key] for key in ("hidden_size", "intermediate_size", "num_hidden_layers", "num_attention_heads")}
    return BertModel(BertConfig(vocab_size=len(tokenizer), **size), add_pooling_layer=False), tokenizer


def wan_vae() -> AutoencoderKLWan:
    """The autoencoder of Wan 2.1, with means and spreads of channels."""
    return AutoencoderKLWan(base_dim=3, dim_mult=[1, 1, 1, 1], num_res_blocks=1)


def ltx_vae() -> AutoencoderKLLTXVideo:
    """The autoencoder of LTX-Video, whose decoder is told a time."""
    return AutoencoderKLLTXVideo(
        latent_channels=8,
        block_out_channels=(8,) * 4,
        decoder_block_out_channels=(8,) * 4,
        layers_per_block=(1,) * 5,
        decoder_layers_per_block=(1,) * 5,
        spatio_temporal_scaling=(True, True, False, False),
        decoder_spatio_temporal_scaling=(True, True, False, False),
        timestep_conditioning=True,
        patch_size=1,
    )


def umt5(tokenizer: Any) -> UMT5EncoderModel:
    """The text encoder of AuraFlow."""
    size = {"d_model": WIDTH, "d_kv": 8, "d_ff": 32, "num_layers": 1, "num_heads": 2}
    return UMT5EncoderModel(UMT5Config(vocab_size=len(tokenizer), **size))


def language(kind: str, model: str = "Model", layers: int = 2, **more: Any) -> Callable[[Any], Any]:
    """Makes a language model of transformers for a tokenizer."""
    size = {**TEXT, "num_hidden_layers": layers, **more}

    def make(tokenizer: Any) -> Any:
        config = getattr(transformers, f"{kind}Config")(vocab_size=len(tokenizer), **size)
        return getattr(transformers, f"{kind}{model}")(config)

    return make


def qwen25_vl(tokenizer: Any) -> Qwen2_5_VLForConditionalGeneration:
    """The text encoder of Qwen-Image."""
    rope = {"type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0}
    text = {**{key: size for key, size in TEXT.items() if key != "head_dim"}, "vocab_size": len(tokenizer)}
    config = Qwen2_5_VLConfig(text_config={**text, "rope_parameters": rope}, vision_config=VISION)
    return Qwen2_5_VLForConditionalGeneration(config)


def qwen3_vl(tokenizer: Any, *, head: bool = False, layers: int = 2) -> Any:
    """The text encoder of Ideogram 4, Krea 2 and Nucleus-Image."""
    rope = {"rope_type": "default", "mrope_section": [2, 1, 1], "rope_theta": 10000.0, "mrope_interleaved": True}
    text = {**TEXT, "num_hidden_layers": layers, "vocab_size": len(tokenizer), "rope_parameters": rope}
    vision = {**VISION, "num_position_embeddings": 16, "deepstack_visual_indexes": [0]}
    config = Qwen3VLConfig(text_config=text, vision_config=vision)
    return (Qwen3VLForConditionalGeneration if head else Qwen3VLModel)(config)


def mistral3(tokenizer: Any) -> Mistral3ForConditionalGeneration:
    """The text encoder of FLUX.2."""
    text = {**TEXT, "num_hidden_layers": 30, "vocab_size": len(tokenizer), "model_type": "mistral"}
    vision = {
        "model_type": "pixtral",
        "hidden_size": WIDTH,
        "intermediate_size": WIDTH,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "head_dim": 8,
        "image_size": 16,
        "patch_size": 8,
    }
    return Mistral3ForConditionalGeneration(Mistral3Config(text_config=text, vision_config=vision))
