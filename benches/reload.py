#!/usr/bin/env python3
"""Reloads under load: what requests notice, and what memory does. Prints.

    python3 benches/reload.py target/release/embedgate models/all-MiniLM-L6-v2 [--reloads 100] [--rate 200]

Every third configuration is broken, or names a model that cannot be loaded; the others load the model anew. Requests come at a fixed
rate, each with a text of its own, over connections that stay open. Each answer must be that of one of the two models.
"""

import argparse
import http.client
import json
import statistics
import subprocess
import tempfile
import threading
import time
from pathlib import Path

KEY = "a-key-of-this-script"


def config(model, more):
    return f'[auth]\nkeys = [{{ key = "{KEY}", admin = true }}]\n[cache]\nmax_size = "0B"\n[log]\nlevel = "warn"\n[models.m]\npath = "{model}"\n{more}\n'


def resident(pid, name):
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(name):
            return int(line.split()[1]) / 1024


def post(connection, path, body):
    connection.request("POST", path, json.dumps(body), {"Authorization": f"Bearer {KEY}", "Content-Type": "application/json"})
    answer = connection.getresponse()
    return answer.status, json.loads(answer.read())


class Load(threading.Thread):
    """Sends requests at its share of the rate until it is told to stop."""

    def __init__(self, port, pause, number, known):
        super().__init__()
        self.port, self.pause, self.number, self.known = port, pause, number, known
        self.times, self.failed, self.mixed, self.stop = [], [], 0, False

    def run(self):
        connection = http.client.HTTPConnection("127.0.0.1", self.port)
        due, n = time.monotonic(), 0
        while not self.stop:
            due += self.pause
            time.sleep(max(0, due - time.monotonic()))
            started = time.monotonic()
            text = self.known[0]
            # Equal texts in flight would be computed once.
            texts = [f"{text} {self.number} {n} {i}" for i in range(2)]
            status, body = post(connection, "/v1/embeddings", {"model": "m", "input": texts, "dimensions": 8})
            self.times.append(time.monotonic() - started)
            n += 1
            if status != 200:
                self.failed.append(body)
                continue
            vectors = [tuple(round(x, 4) for x in row["embedding"][:8]) for row in body["data"]]
            of = [next((name for name, expected in self.known[1].items() if close(vector, expected)), None) for vector in vectors]
            if len(set(of)) != 1 or of[0] is None:
                self.mixed += 1


def close(a, b):
    return all(abs(x - y) < 1e-3 for x, y in zip(a, b))


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program")
    parser.add_argument("model", type=Path)
    parser.add_argument("--reloads", type=int, default=100)
    parser.add_argument("--rate", type=float, default=200)
    parser.add_argument("--clients", type=int, default=8)
    args = parser.parse_args()
    model = args.model.resolve()
    # Longer than either model takes, so that what comes behind it changes nothing.
    text = "the same words again and again, " * 16
    with tempfile.TemporaryDirectory() as folder:
        file, port_file = Path(folder) / "embedgate.toml", Path(folder) / "port"
        configs = {"short": config(model, "max_length = 5"), "long": config(model, "max_length = 10")}
        broken = [config(model, "max_length = 99999"), "nonsense"]
        file.write_text(configs["short"])
        server = subprocess.Popen([args.program, "--config", file, "--listen", "127.0.0.1:0", "--port-file", port_file], stderr=subprocess.DEVNULL)
        while not port_file.exists() or not port_file.read_text():
            time.sleep(0.05)
        port = int(port_file.read_text())
        admin = http.client.HTTPConnection("127.0.0.1", port)
        while post(admin, "/v1/embeddings", {"model": "m", "input": "a"})[0] != 200:
            time.sleep(0.1)
        known = {}
        for name, written in configs.items():
            file.write_text(written)
            assert post(admin, "/admin/reload", None)[0] == 200
            known[name] = post(admin, "/v1/embeddings", {"model": "m", "input": text, "dimensions": 8})[1]["data"][0]["embedding"][:8]
        assert not close(known["short"], known["long"]), "the two models give the same"
        before = resident(server.pid, "VmRSS")
        Path(f"/proc/{server.pid}/clear_refs").write_text("5")
        loads = [Load(port, args.clients / args.rate, number, (text, known)) for number in range(args.clients)]
        for load in loads:
            load.start()
        time.sleep(5)
        quiet = sorted(x for load in loads for x in load.times)
        warmed = resident(server.pid, "VmRSS")
        started, took = time.monotonic(), []
        for number in range(args.reloads):
            good = number % 3 != 2
            file.write_text(configs[["short", "long"][number % 3]] if good else broken[number % 2])
            begun = time.monotonic()
            status, report = post(admin, "/admin/reload", None)
            took.append(time.monotonic() - begun)
            assert (status == 200) == good, report
        seconds = time.monotonic() - started
        rate = (sum(len(load.times) for load in loads) - len(quiet)) / seconds
        for load in loads:
            load.stop = True
        for load in loads:
            load.join()
        peak = resident(server.pid, "VmHWM")
        # The last requests of the model before let go of it.
        time.sleep(2)
        after = resident(server.pid, "VmRSS")
        server.terminate()
        server.wait()
    times = sorted(x for load in loads for x in load.times)
    at = lambda all, share: all[int(len(all) * share)] * 1000
    failed = [body for load in loads for body in load.failed]
    print(f"{len(times)} requests, {len(failed)} failed, {sum(load.mixed for load in loads)} of two models or none")
    print(f"{args.reloads} reloads in {seconds:.1f} s, {statistics.median(took):.2f} s each, under {rate:.0f} requests/s")
    print(f"p50, p99 in ms: {at(quiet, 0.5):.1f}, {at(quiet, 0.99):.1f} before, {at(times, 0.5):.1f}, {at(times, 0.99):.1f} meanwhile")
    print(f"resident MiB: {before:.0f} before, {warmed:.0f} under load, {peak:.0f} at the peak, {after:.0f} after")
    print(failed[:3])


if __name__ == "__main__":
    main()
