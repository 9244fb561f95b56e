"""Makes the files of the PyPI package bge-m3-lite from a bge-m3 folder, for compare_bge_m3.py to measure.

    v/bin/pip install bge-m3-lite==0.6.2 onnx sympy
    v/bin/python benches/make_bge_m3_lite.py models/bge-m3-random [models/bge-m3-random/lite]

The package reads the hub's ONNX export of BAAI/bge-m3: here the folder's weights are exported as that was, by the TorchScript
exporter at opset 11, and the package's own `fuse` and `quantize` do the rest. Printed are the files, and how far the dense
vectors of each are from torch's; with random weights that of int8 says little.
"""

import concurrent.futures
import multiprocessing
import pathlib
import shutil
import sys
import tempfile
from collections.abc import Callable

import numpy as np
import onnx
import torch
from bge_m3_lite.fuse import fuse
from bge_m3_lite.model import OnnxBackbone
from bge_m3_lite.quantize import QuantConfig, load_calibration_texts, quantize
from transformers import AttentionInterface, XLMRobertaModel

AXES = {0: "batch", 1: "length"}
# A part of the package's calibration, which is of 573 texts of up to 512 tokens, to save time and memory: the scales that it
# finds are values of the graph and not its shape, and the speed does not depend on them.
CALIBRATION = QuantConfig(calibration_max_length=128)
CALIBRATION_TEXTS = load_calibration_texts()[::8]


def attention(module: torch.nn.Module, query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor,
              **_: object) -> tuple:
    """The attention of transformers 4: onnxruntime's fusion finds the scores divided, and not those multiplied as now.

    `query`, `key` and `value` have shape `(batch, heads, length, width)`, `mask` is added to the scores. Returns shape
    `(batch, length, heads, width)`, and no weights.
    """
    scores = query @ key.transpose(-1, -2) / query.shape[-1] ** 0.5 + mask
    return (scores.softmax(-1) @ value).transpose(1, 2).contiguous(), None


class Export(torch.nn.Module):
    """The encoder with the mask of transformers 4, which onnxruntime's fusion looks for."""

    def __init__(self, model: XLMRobertaModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
        mask = (1.0 - attention_mask[:, None, None, :].float()) * torch.finfo(torch.float32).min
        return self.model(input_ids, attention_mask=mask).last_hidden_state


def export(folder: pathlib.Path, out: pathlib.Path) -> tuple:
    """Writes `model.onnx` and `model.onnx_data`, and returns ids, mask and last hidden states of a batch with padding."""
    AttentionInterface.register("divided", attention)
    loaded = XLMRobertaModel.from_pretrained(folder, add_pooling_layer=False, attn_implementation="divided")
    model = Export(loaded).eval()
    ids = torch.randint(4, 2000, (4, 300))
    mask = torch.ones_like(ids)
    mask[2:, 100:] = 0
    ids[mask == 0] = loaded.config.pad_token_id
    names = ["input_ids", "attention_mask", "token_embeddings"]
    with tempfile.TemporaryDirectory(dir=out) as parts:  # a file for each tensor, as the exporter does past 2 GB
        torch.onnx.export(
            model, (ids, mask), f"{parts}/model.onnx", opset_version=11, dynamo=False,
            input_names=names[:2], output_names=names[2:], dynamic_axes={name: AXES for name in names},
        )
        graph = onnx.load(f"{parts}/model.onnx")
    onnx.save_model(graph, out / "model.onnx", save_as_external_data=True, location="model.onnx_data")
    with torch.no_grad():
        return ids.numpy(), mask.numpy(), model(ids, mask).numpy()


def in_own_process(function: Callable, *args: object, **kwargs: object) -> object:
    """Each step leaves several copies of the weights in memory, and the last alone needs 21 GB."""
    with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *args, **kwargs).result()


def main() -> None:
    folder = pathlib.Path(sys.argv[1])
    out = pathlib.Path(sys.argv[2]) if len(sys.argv) > 2 else folder / "lite"
    out.mkdir(parents=True)
    for name in ["sentencepiece.bpe.model", "sparse_linear.pt", "colbert_linear.pt"]:
        shutil.copy(folder / name, out)
    ids, mask, expected = in_own_process(export, folder, out)
    fused, quantized = out / "model_fused.onnx", out / "model_int8.onnx"
    in_own_process(fuse, out / "model.onnx")
    in_own_process(quantize, fused, quantized, CALIBRATION, calibration_texts=CALIBRATION_TEXTS)
    for file in sorted(out.iterdir()):
        print(f"{file.stat().st_size / 1e6:8.1f} MB  {file}")
    for path in [fused, quantized]:
        found, wanted = OnnxBackbone(path)(ids, mask)[:, 0], expected[:, 0]
        cosines = (found * wanted).sum(1) / np.linalg.norm(found, axis=1) / np.linalg.norm(wanted, axis=1)
        print(f"{path.name}: cosine to torch at least {cosines.min():.6f}")


if __name__ == "__main__":
    main()
