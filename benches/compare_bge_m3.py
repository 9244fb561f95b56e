"""Measures a full-size bge-m3 on the CPU: sentence-transformers, and embedgate with each of its backends and precisions.

    python3 -m venv v && v/bin/pip install sentence-transformers==6.2.0
    v/bin/python benches/make_bge_m3.py models/bge-m3-random && target/release/embedgate convert models/bge-m3-random
    v/bin/python benches/compare_bge_m3.py models/bge-m3-random

All run side by side, take turns in each round, and use the same number of threads; embedgate is measured over
HTTP, its cache off. Printed are the time from start to ready (file in the page cache), the median of tokens a second by
shape (sequences x tokens), the ratio to sentence-transformers in the same rounds, and the process's peak memory, the
last also after one sequence of 8192 tokens.
"""

import argparse
import http.client
import json
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import time

SHAPES = [(1, 16), (1, 128), (8, 128), (4, 512)]
LONG = 8192


class Server:
    """embedgate with one backend."""

    def __init__(self, program: str, model: str, backend: str, threads: int, settings: str = "") -> None:
        self.name = f"embedgate {backend}"
        backend, _, precision = backend.partition(" ")
        self.file = tempfile.NamedTemporaryFile("w", suffix=".toml")
        self.file.write(
            f'[auth]\nmode = "none"\n[log]\nformat = "json"\n[cache]\nmax_size = "0B"\n[server]\n'
            f'listen = "127.0.0.1:0"\nrequest_timeout = "30m"\nidle_timeout = "1h"\n[models.m]\npath = "{model}"\n'
            f'backend = {{ type = "{backend}", precision = "{precision or "f32"}", threads = {threads} }}\n{settings}\n'
        )
        self.file.flush()
        started = time.perf_counter()
        self.process = subprocess.Popen([program, "--config", self.file.name], stderr=subprocess.PIPE, text=True)
        address = None
        for line in self.process.stderr:
            entry = json.loads(line)
            address = address or entry.get("address")
            if entry["message"] == "ready":
                break
        else:
            sys.exit(f"{self.name} did not start")
        self.seconds = time.perf_counter() - started
        self.connection = http.client.HTTPConnection(address)

    def embed(self, texts: list, **fields: object) -> bytes:
        body = json.dumps({"model": "m", "input": texts, "encoding_format": "base64"} | fields)
        self.connection.request("POST", "/v1/embeddings", body)
        response = self.connection.getresponse()
        answer = response.read()
        assert response.status == 200, answer
        return answer

    def peak_mib(self) -> int:
        return peak_mib(self.process.pid)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


class SentenceTransformers:
    """The library in a process of its own, fed by a pipe."""

    name = "sentence-transformers f32"

    def __init__(self, model: str, threads: int) -> None:
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, __file__, model, "--worker", str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        assert self.process.stdout.readline() == "ready\n"
        self.seconds = time.perf_counter() - started

    def embed(self, texts: list) -> None:
        self.process.stdin.write(json.dumps(texts) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def peak_mib(self) -> int:
        return peak_mib(self.process.pid)

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def worker(model: str, threads: int) -> None:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    loaded = SentenceTransformer(model, device="cpu")
    loaded.encode(["warm-up"])
    print("ready", flush=True)
    for line in sys.stdin:
        loaded.encode(json.loads(line), batch_size=32, normalize_embeddings=True)
        print("done", flush=True)


def peak_mib(pid: int) -> int:
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) // 1024


def texts_of(rng: random.Random, words: list, n: int, tokens: int) -> list:
    """Texts of exactly so many tokens, the two special ones included: each word is one token."""
    return [" ".join(rng.choices(words, k=tokens - 2)) for _ in range(n)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--program", default="target/release/embedgate")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backends", default="cpu f32,cpu bf16,cpu int8,candle f32,onnx f32")
    parser.add_argument("--worker", type=int, help=argparse.SUPPRESS)
    args = parser.parse_args()
    model = str(pathlib.Path(args.model).resolve())
    if args.worker:
        worker(model, args.worker)
        return

    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
    single = [t[1:] for t in sorted(tokenizer.get_vocab()) if t.startswith("▁") and t[1:].isalpha()]
    words = [w for w in single if len(tokenizer.encode(w).ids) == 3]
    rng = random.Random(1)
    for n, tokens in SHAPES:
        assert all(len(tokenizer.encode(t).ids) == tokens for t in texts_of(rng, words, n, tokens))

    systems = [SentenceTransformers(model, args.threads)]
    systems += [Server(args.program, model, backend, args.threads) for backend in args.backends.split(",")]
    speeds = {(s.name, shape): [] for s in systems for shape in SHAPES}
    for round_ in range(args.rounds + 1):
        for shape in SHAPES:
            texts = texts_of(rng, words, *shape)
            for system in systems:
                started = time.perf_counter()
                system.embed(texts)
                if round_ > 0:  # the first warms up
                    speeds[system.name, shape].append(shape[0] * shape[1] / (time.perf_counter() - started))
    peaks = {s.name: s.peak_mib() for s in systems}
    long_text = texts_of(rng, words, 1, LONG)
    long_speeds = {}
    for system in systems:
        started = time.perf_counter()
        system.embed(long_text)
        long_speeds[system.name] = LONG / (time.perf_counter() - started)

    heads = [f"{n}x{t}" for n, t in SHAPES] + [f"1x{LONG}"]
    print(f"{args.threads} threads, medians of {args.rounds} rounds; tokens/s (ratio to the first row in the same rounds)\n")
    print("| | start to ready | " + " | ".join(heads) + f" | peak MiB | peak MiB after 1x{LONG} |")
    print("| --- |" + " --- |" * (len(heads) + 3))
    for system in systems:
        cells = []
        for shape in SHAPES:
            pairs = zip(speeds[system.name, shape], speeds[systems[0].name, shape])
            ratio = statistics.median(a / b for a, b in pairs)
            cells.append(f"{statistics.median(speeds[system.name, shape]):.0f} ({ratio:.2f})")
        cells.append(f"{long_speeds[system.name]:.0f} ({long_speeds[system.name] / long_speeds[systems[0].name]:.2f})")
        row = f"| {system.name} | {system.seconds:.1f} s | " + " | ".join(cells)
        print(row + f" | {peaks[system.name]} | {system.peak_mib()} |")
    for system in systems:
        system.stop()


if __name__ == "__main__":
    main()
