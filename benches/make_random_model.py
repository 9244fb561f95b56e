"""Makes a full-size random model of a family for speed and memory: Qwen3-Embedding-0.6B, ModernBERT-base or all-mpnet-base-v2.

    python3 -m venv v && v/bin/pip install torch==2.15.0 transformers==5.24.0
    v/bin/python benches/make_random_model.py qwen3-0.6b models/qwen3-random
    v/bin/python benches/compare_bge_m3.py models/qwen3-random

Laid out as on the hub, weights in one `model.safetensors` in bfloat16. Tokenizer, modules and settings are those of the tiny
model of the family in tests/fixtures/layouts, whose few tokens are valid ids of the large vocabulary.
"""

import json
import pathlib
import shutil
import sys

import torch
from transformers import AutoConfig, AutoModel

LAYOUTS = pathlib.Path(__file__).parent.parent / "tests/fixtures/layouts"
# The tiny model, and what is large in the full-size one.
MODELS = {
    "qwen3-0.6b": ("qwen3-embedding", {
        "vocab_size": 151669, "hidden_size": 1024, "num_hidden_layers": 28, "num_attention_heads": 16,
        "num_key_value_heads": 8, "head_dim": 128, "intermediate_size": 3072, "max_position_embeddings": 32768,
        "max_window_layers": 28, "layer_types": ["full_attention"] * 28,
    }),
    "modernbert-base": ("modernbert", {
        "vocab_size": 50368, "hidden_size": 768, "num_hidden_layers": 22, "num_attention_heads": 12,
        "intermediate_size": 1152, "max_position_embeddings": 8192, "local_attention": 128,
        "layer_types": ["sliding_attention" if i % 3 else "full_attention" for i in range(22)],
    }),
    "mpnet-base": ("mpnet", {
        "vocab_size": 30527, "hidden_size": 768, "num_hidden_layers": 12, "num_attention_heads": 12,
        "intermediate_size": 3072, "max_position_embeddings": 514,
    }),
}


def main() -> None:
    name, out = sys.argv[1], pathlib.Path(sys.argv[2])
    tiny, sizes = MODELS[name]
    shutil.copytree(LAYOUTS / tiny, out, ignore=shutil.ignore_patterns("*.safetensors"))
    torch.manual_seed(1)
    config = json.loads((out / "config.json").read_text()) | sizes
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    pooling = json.loads((out / "1_Pooling/config.json").read_text())
    for key in ("word_embedding_dimension", "embedding_dimension"):
        if key in pooling:
            pooling[key] = config["hidden_size"]
    (out / "1_Pooling/config.json").write_text(json.dumps(pooling, indent=2) + "\n")
    sentence = {"max_seq_length": min(config["max_position_embeddings"] - 2, 8192), "do_lower_case": False}
    (out / "sentence_bert_config.json").write_text(json.dumps(sentence) + "\n")
    model = AutoModel.from_config(AutoConfig.from_pretrained(out))
    model.to(torch.bfloat16).save_pretrained(out)
    print(f"{sum(p.numel() for p in model.parameters()) / 1e6:.0f} M numbers -> {out}")


if __name__ == "__main__":
    main()
