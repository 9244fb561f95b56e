"""Makes a full-size random bge-m3 (24 x 1024 x 16 heads x 4096, vocabulary 250002; 2.3 GB) for speed and memory.

    python3 -m venv v && v/bin/pip install torch==2.15.0 transformers==5.23.0
    v/bin/python benches/make_bge_m3.py models/bge-m3-random

Laid out as BAAI/bge-m3 is: weights in `pytorch_model.bin` alone, heads in `sparse_linear.pt` and `colbert_linear.pt`. The
tokenizer is that of tests/fixtures/tiny-bge-m3, whose few tokens are valid ids of the large vocabulary.
"""

import json
import pathlib
import shutil
import sys

import torch
from transformers import XLMRobertaConfig, XLMRobertaModel

TINY = pathlib.Path(__file__).parent.parent / "tests/fixtures/tiny-bge-m3"


def middle(model: XLMRobertaModel, weight: torch.Tensor) -> torch.Tensor:
    """The bias that leaves half of the tokens with a sparse weight: a random encoder's tokens nearly all have one sign."""
    ids = torch.randint(4, 2000, (8, 64))
    with torch.no_grad():
        return -(model.eval()(ids).last_hidden_state @ weight.T).median().reshape(1)


def main() -> None:
    out = pathlib.Path(sys.argv[1])
    shutil.copytree(TINY, out, ignore=shutil.ignore_patterns("*.bin", "*.pt", "onnx"))
    torch.manual_seed(1)
    config = json.loads((out / "config.json").read_text())
    config |= {"hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096,
               "vocab_size": 250002}
    (out / "config.json").write_text(json.dumps(config, indent=2) + "\n")
    pooling = json.loads((out / "1_Pooling/config.json").read_text()) | {"word_embedding_dimension": 1024}
    (out / "1_Pooling/config.json").write_text(json.dumps(pooling, indent=2) + "\n")
    model = XLMRobertaModel(XLMRobertaConfig(**{k: v for k, v in config.items() if k != "torch_dtype"}))
    torch.save(model.float().state_dict(), out / "pytorch_model.bin")
    weight = torch.randn(1, 1024) / 32
    torch.save({"weight": weight, "bias": middle(model, weight)}, out / "sparse_linear.pt")
    torch.save({"weight": torch.randn(1024, 1024) / 32, "bias": torch.zeros(1024)}, out / "colbert_linear.pt")
    print(f"{(out / 'pytorch_model.bin').stat().st_size / 1e9:.2f} GB -> {out}")


if __name__ == "__main__":
    main()
