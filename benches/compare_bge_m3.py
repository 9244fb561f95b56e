"""Measures a full-size bge-m3 on the CPU: sentence-transformers, embedgate by backend and precision, and bge-m3-lite.

    python3 -m venv v && v/bin/pip install sentence-transformers==6.2.0
    v/bin/python benches/make_bge_m3.py models/bge-m3-random
    target/release/embedgate convert models/bge-m3-random
    target/release/embedgate convert models/bge-m3-random --precision int8
    v/bin/python benches/compare_bge_m3.py models/bge-m3-random

bge-m3-lite, a library for this one model on onnxruntime, is measured beside them when asked for:

    v/bin/pip install bge-m3-lite==0.6.2 onnx sympy
    v/bin/python benches/make_bge_m3_lite.py models/bge-m3-random
    v/bin/python benches/compare_bge_m3.py models/bge-m3-random --lite models/bge-m3-random/lite

All run side by side, take turns in each round, and use the same number of threads; embedgate is measured over
HTTP, its cache off. Printed are the time from start to ready (file in the page cache), the median of tokens a second by
shape (sequences x tokens), the ratio to sentence-transformers in the same rounds, and the process's memory: resident
once it is ready, at its peak, and at its peak after one sequence of 8192 tokens.

"mixed" is 64 texts of 10 to 512 tokens, the logarithm of the length normally distributed, in one request; "clients" are other
texts of the same lengths, one a request, from 16 clients at once. A library has one caller: there it is the speed of "mixed".
"""

import argparse
import collections
import concurrent.futures
import http.client
import json
import math
import os
import pathlib
import random
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable

SHAPES = [(1, 16), (1, 128), (8, 128), (4, 512)]
LONG = 8192
# The logarithm of the length is normally distributed, as it is in most collections of texts.
LENGTHS = statistics.NormalDist(math.log(68), 0.9)
MIXED = [min(max(round(math.exp(LENGTHS.inv_cdf((i + 0.5) / 64))), 10), 512) for i in range(64)]
CLIENTS = 16


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
        # The rest of the log is read, and of no interest.
        threading.Thread(target=collections.deque, args=(self.process.stderr, 0), daemon=True).start()
        self.address = address
        self.connection = http.client.HTTPConnection(address)
        self.pool = concurrent.futures.ThreadPoolExecutor(CLIENTS)

    def embed(self, texts: list, connection: http.client.HTTPConnection | None = None, **fields: object) -> bytes:
        connection = connection or self.connection
        body = json.dumps({"model": "m", "input": texts, "encoding_format": "base64"} | fields)
        connection.request("POST", "/v1/embeddings", body)
        response = connection.getresponse()
        answer = response.read()
        assert response.status == 200, answer
        return answer

    def embed_from_clients(self, texts: list) -> None:
        """One text a request: each client sends its next when the last is answered."""
        waiting = iter(texts)

        def client() -> None:
            connection = http.client.HTTPConnection(self.address)
            for text in waiting:
                self.embed([text], connection)
            connection.close()

        for running in [self.pool.submit(client) for _ in range(CLIENTS)]:
            running.result()

    def memory_mib(self, which: str) -> int:
        return memory_mib(self.process.pid, which)

    def stop(self) -> None:
        self.process.terminate()
        self.process.wait()


class Library:
    """A Python library in a process of its own, fed by a pipe."""

    def __init__(self, name: str, folder: str, threads: int) -> None:
        self.name = name
        started = time.perf_counter()
        self.process = subprocess.Popen(
            [sys.executable, __file__, folder, "--worker", name, "--threads", str(threads)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True,
        )
        assert self.process.stdout.readline() == "ready\n"
        self.seconds = time.perf_counter() - started

    def embed(self, texts: list) -> None:
        self.process.stdin.write(json.dumps(texts) + "\n")
        self.process.stdin.flush()
        assert self.process.stdout.readline() == "done\n"

    def memory_mib(self, which: str) -> int:
        return memory_mib(self.process.pid, which)

    def stop(self) -> None:
        self.process.stdin.close()
        self.process.wait()


def worker(name: str, folder: str, threads: int) -> None:
    library, _, precision = name.partition(" ")
    if library == "bge-m3-lite":
        encode = bge_m3_lite(folder, precision, threads)
    else:
        encode = sentence_transformers(folder, threads)
    encode(["warm-up"])
    print("ready", flush=True)
    for line in sys.stdin:
        encode(json.loads(line))
        print("done", flush=True)


def sentence_transformers(folder: str, threads: int) -> Callable:
    import torch
    from sentence_transformers import SentenceTransformer

    torch.set_num_threads(threads)
    loaded = SentenceTransformer(folder, device="cpu")
    return lambda texts: loaded.encode(texts, batch_size=32, normalize_embeddings=True)


def bge_m3_lite(folder: str, precision: str, threads: int) -> Callable:
    from bge_m3_lite import BGEM3Embedder, hub

    # The package deletes and downloads whatever has not the digest of the hub's file; no setting leaves local files alone.
    hub.ensure_files = lambda files, cache_dir, quiet: {f.name: pathlib.Path(cache_dir) / f.name for f in files}
    precision = {"f32": "fp32", "int8": "int8"}[precision]
    return BGEM3Embedder(cache_dir=folder, precision=precision, num_threads=threads).encode


def memory_mib(pid: int, which: str) -> int:
    """VmRSS is what is resident, VmHWM the most that was."""
    status = pathlib.Path(f"/proc/{pid}/status").read_text()
    return int(status.split(f"{which}:")[1].split()[0]) // 1024


def texts_of(rng: random.Random, words: list, n: int, tokens: int) -> list:
    """Texts of exactly so many tokens, the two special ones included: each word is one token."""
    return [" ".join(rng.choices(words, k=tokens - 2)) for _ in range(n)]


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model")
    parser.add_argument("--program", default="target/release/embedgate")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--backends", default="cpu f32,cpu bf16,cpu int8,candle f32,onnx f32,onnx int8")
    parser.add_argument("--lite", help="the folder made by make_bge_m3_lite.py")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    args = parser.parse_args()
    model = str(pathlib.Path(args.model).resolve())
    if args.worker:
        worker(args.worker, model, args.threads)
        return

    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(f"{model}/tokenizer.json")
    single = [t[1:] for t in sorted(tokenizer.get_vocab()) if t.startswith("▁") and t[1:].isalpha()]
    words = [w for w in single if len(tokenizer.encode(w).ids) == 3]
    rng = random.Random(1)
    for n, tokens in SHAPES:
        assert all(len(tokenizer.encode(t).ids) == tokens for t in texts_of(rng, words, n, tokens))

    systems = [Library("sentence-transformers f32", model, args.threads)]
    systems += [Server(args.program, model, backend, args.threads) for backend in args.backends.split(",")]
    if args.lite:
        systems += [Library(f"bge-m3-lite {precision}", args.lite, args.threads) for precision in ["f32", "int8"]]
    idle = {s.name: s.memory_mib("VmRSS") for s in systems}
    loads = [f"{n}x{t}" for n, t in SHAPES] + ["mixed", "clients"]
    speeds = {(s.name, load): [] for s in systems for load in loads}
    for round_ in range(args.rounds + 1):
        for load, shape in zip(loads, [*SHAPES, None, None]):
            # Every load gets texts of its own.
            lengths = [shape[1]] * shape[0] if shape else MIXED
            texts = [text for tokens in lengths for text in texts_of(rng, words, 1, tokens)]
            rng.shuffle(texts)
            for system in systems:
                if round_ == 0 and not shape:
                    continue
                if load == "clients" and isinstance(system, Library):
                    speeds[system.name, load].append(speeds[system.name, "mixed"][-1])
                    continue
                started = time.perf_counter()
                (system.embed_from_clients if load == "clients" else system.embed)(texts)
                if round_ > 0:  # the first warms up
                    speeds[system.name, load].append(sum(lengths) / (time.perf_counter() - started))
    peaks = {s.name: s.memory_mib("VmHWM") for s in systems}
    long_text = texts_of(rng, words, 1, LONG)
    long_speeds = {}
    for system in systems:
        started = time.perf_counter()
        system.embed(long_text)
        long_speeds[system.name] = LONG / (time.perf_counter() - started)

    heads = ["start to ready", *loads, f"1x{LONG}", "idle MiB", "peak MiB", f"peak MiB after 1x{LONG}"]
    print(f"{args.threads} threads, medians of {args.rounds} rounds; tokens/s (ratio to the first row in the same rounds)\n")
    print("| | " + " | ".join(heads) + " |")
    print("| --- |" + " --- |" * len(heads))
    for system in systems:
        cells = [f"{system.seconds:.1f} s"]
        for load in loads:
            pairs = zip(speeds[system.name, load], speeds[systems[0].name, load])
            ratio = statistics.median(a / b for a, b in pairs)
            cells.append(f"{statistics.median(speeds[system.name, load]):.0f} ({ratio:.2f})")
        cells.append(f"{long_speeds[system.name]:.0f} ({long_speeds[system.name] / long_speeds[systems[0].name]:.2f})")
        cells += [idle[system.name], peaks[system.name], system.memory_mib("VmHWM")]
        print(f"| {system.name} | " + " | ".join(map(str, cells)) + " |")
    for system in systems:
        system.stop()


if __name__ == "__main__":
    main()
