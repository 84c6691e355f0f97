"""Shapes of known architectures, as their configurations have them."""

from __future__ import annotations

from typing import Any

# --- models
# ----------------------------------------------------------------------------------------------------

_LLAMA3 = {"vocab_size": 128256, "max_position_embeddings": 131072, "rms_norm_eps": 1e-5}

_OLMO = {
    "vocab_size": 50304,
    "max_position_embeddings": 4096,
    "clip_qkv": 8.0,
    "tie_word_embeddings": False,
}

# name -> (model type, repository, what its published config says of shapes)
SHAPES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "olmo-1b": (
        "olmo",
        "allenai/OLMo-1B-0724-hf",
        {
            **_OLMO,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 16,
        },
    ),
    "olmo-7b": (
        "olmo",
        "allenai/OLMo-7B-0724-Instruct-hf",
        {
            **_OLMO,
            "hidden_size": 4096,
            "intermediate_size": 11008,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
        },
    ),
    "smollm2-135m": (
        "llama",
        "HuggingFaceTB/SmolLM2-135M-Instruct",
        {
            "vocab_size": 49152,
            "hidden_size": 576,
            "intermediate_size": 1536,
            "num_hidden_layers": 30,
            "num_attention_heads": 9,
            "num_key_value_heads": 3,
            "max_position_embeddings": 8192,
            "tie_word_embeddings": True,
        },
    ),
    "llama-3.2-1b": (
        "llama",
        "meta-llama/Llama-3.2-1B",
        {
            **_LLAMA3,
            "hidden_size": 2048,
            "intermediate_size": 8192,
            "num_hidden_layers": 16,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "head_dim": 64,
            "tie_word_embeddings": True,
        },
    ),
    "llama-3.1-8b": (
        "llama",
        "meta-llama/Llama-3.1-8B",
        {
            **_LLAMA3,
            "hidden_size": 4096,
            "intermediate_size": 14336,
            "num_hidden_layers": 32,
            "num_attention_heads": 32,
            "num_key_value_heads": 8,
            "tie_word_embeddings": False,
        },
    ),
    "llama-3.1-70b": (
        "llama",
        "meta-llama/Llama-3.1-70B",
        {
            **_LLAMA3,
            "hidden_size": 8192,
            "intermediate_size": 28672,
            "num_hidden_layers": 80,
            "num_attention_heads": 64,
            "num_key_value_heads": 8,
            "tie_word_embeddings": False,
        },
    ),
    "qwen2.5-32b": (
        "qwen2",
        "Qwen/Qwen2.5-32B",
        {
            "vocab_size": 152064,
            "hidden_size": 5120,
            "intermediate_size": 27648,
            "num_hidden_layers": 64,
            "num_attention_heads": 40,
            "num_key_value_heads": 8,
            "max_position_embeddings": 131072,
            "tie_word_embeddings": False,
        },
    ),
}
