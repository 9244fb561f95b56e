"""Measures a full-size model of any family on the CPU beside sentence-transformers, in turns: tokens a second by shape, and their ratio.

    python3 -m venv v && v/bin/pip install sentence-transformers==6.2.0
    v/bin/python benches/make_random_model.py qwen3-0.6b models/qwen3-random
    v/bin/python benches/compare_families.py models/qwen3-random --program target/release/embedgate

Both use the same number of threads. embedgate is measured over HTTP, its cache off; of sentence-transformers the encoder alone is, in
f32, in batches of at most 32 texts, the longest first, padded to the longest. "mixed" are 32 texts of 10 to 512 tokens, the logarithm of
the length normally distributed, in one request. Printed are medians, and the median, least and largest ratio of the rounds.
"""

import argparse
import http.client
import json
import math
import pathlib
import random
import statistics
import subprocess
import tempfile
import time

import torch
from sentence_transformers import SentenceTransformer

LENGTHS = statistics.NormalDist(math.log(68), 0.9)
MIXED = [min(max(round(math.exp(LENGTHS.inv_cdf((i + 0.5) / 32))), 10), 512) for i in range(32)]
SHAPES = {"1x16": [16], "1x128": [128], "8x128": [128] * 8, "4x512": [512] * 4, "mixed": MIXED}


class Server:
    """embedgate with the cpu backend."""

    def __init__(self, program: str, folder: str, precision: str, threads: int) -> None:
        self.file = tempfile.NamedTemporaryFile("w", suffix=".toml")
        self.file.write(
            '[auth]\nmode = "none"\n[log]\nformat = "json"\n[cache]\nmax_size = "0B"\n[server]\nlisten = "127.0.0.1:0"\n'
            f'request_timeout = "30m"\nidle_timeout = "1h"\n[models.m]\npath = "{pathlib.Path(folder).absolute()}"\ntoken_ids = "native"\n'
            f'backend = {{ type = "cpu", precision = "{precision}", threads = {threads} }}\n'
        )
        self.file.flush()
        command = [program, "serve", "--config", self.file.name]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        address = None
        for line in self.process.stderr:
            entry = json.loads(line)
            address = address or entry.get("address")
            if entry["message"] == "ready":
                break
        self.connection = http.client.HTTPConnection(address, timeout=1800)

    def embed(self, sequences: list[list[int]]) -> None:
        body = json.dumps({"model": "m", "input": sequences, "encoding_format": "base64"})
        self.connection.request("POST", "/v1/embeddings", body)
        response = self.connection.getresponse()
        answer = response.read()
        assert response.status == 200, answer[:300]

    def memory_mib(self) -> int:
        status = pathlib.Path(f"/proc/{self.process.pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) // 1024

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


def encode(model: torch.nn.Module, sequences: list[list[int]]) -> None:
    """The encoder of sentence-transformers, in batches of texts of like length."""
    sequences = sorted(sequences, key=len, reverse=True)
    with torch.inference_mode():
        for first in range(0, len(sequences), 32):
            part = sequences[first:first + 32]
            longest = len(part[0])
            ids = torch.tensor([s + [0] * (longest - len(s)) for s in part])
            mask = torch.tensor([[1] * len(s) + [0] * (longest - len(s)) for s in part])
            model(input_ids=ids, attention_mask=mask)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("folder")
    parser.add_argument("--program", default="target/release/embedgate")
    parser.add_argument("--precision", default="f32")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--shapes", default=",".join(SHAPES))
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    random.seed(1)
    library = SentenceTransformer(args.folder, device="cpu", model_kwargs={"dtype": torch.float32})[0].auto_model.eval()
    server = Server(args.program, args.folder, args.precision, args.threads)
    print(f"embedgate {args.precision}: {server.memory_mib()} MiB, idle")
    for name in args.shapes.split(","):
        sequences = [[random.randrange(20, 290) for _ in range(n)] for n in SHAPES[name]]
        n_tokens = sum(map(len, sequences))
        runs = {"library": lambda: encode(library, sequences), "embedgate": lambda: server.embed(sequences)}
        seconds = {key: [] for key in runs}
        for key in runs:
            runs[key]()
        for i in range(args.rounds):
            for key in sorted(runs, reverse=i % 2 == 1):
                started = time.perf_counter()
                runs[key]()
                seconds[key].append(time.perf_counter() - started)
        ratios = [a / b for a, b in zip(seconds["library"], seconds["embedgate"])]
        rates = {key: n_tokens / statistics.median(all_of) for key, all_of in seconds.items()}
        print(f"{name:6} sentence-transformers {rates['library']:7.0f} tokens/s, embedgate {rates['embedgate']:7.0f}: "
              f"{statistics.median(ratios):.2f} [{min(ratios):.2f}, {max(ratios):.2f}]", flush=True)
    server.stop()


if __name__ == "__main__":
    main()
