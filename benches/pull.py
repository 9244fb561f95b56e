#!/usr/bin/env python3
"""What `embedgate pull` takes, beside curl and sha256sum, and what kills cost it. Prints; asserts that the bytes are right.

    python3 benches/pull.py target/release/embedgate [--bytes 2271145830] [--rounds 3] [--kills 20]

Needs 3 x the bytes of disk in --work, and curl. Both sides fetch the same file from the same stand-in for a hub (tests/hub), in
turns.
"""

import argparse
import hashlib
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from pathlib import Path

HERE = Path(__file__).resolve().parent
FIXTURE = HERE.parent / "tests/fixtures/tiny-bge-m3"
MODEL, WEIGHTS = "BAAI/bge-m3", "pytorch_model.bin"


def stand_in(root):
    command = [sys.executable, HERE.parent / "tests/hub/standin_hub.py", root, "--port", "0", "--cdn-port", "0"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    return process, json.loads(process.stdout.readline())["hub"]


def sent(hub):
    with urllib.request.urlopen(f"{hub}/_hub/log") as answer:
        rows = [json.loads(line) for line in answer]
    return sum(row["sent"] for row in rows if row["side"] == "cdn")


def pull_command(program, to):
    return [program, "pull", f"hf:{MODEL}", "--to", to]


def environment(hub, folder):
    return {"HF_ENDPOINT": hub, "MODELSCOPE_ENDPOINT": hub, "HOME": str(folder)}


def measured(command, env):
    """Seconds, and the largest resident set in MiB."""
    started = time.monotonic()
    process = subprocess.Popen(command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0, f"{command} ended with {status}"
    return time.monotonic() - started, usage.ru_maxrss / 1024


def speed(program, hub, folder, size, rounds):
    ratios, resident = [], []
    for number in range(rounds):
        target = folder / "model"
        ours, mib = measured(pull_command(program, target), environment(hub, folder))
        lock = json.loads((target / "embedgate.lock.json").read_text())
        ours_sha256 = next(file["sha256"] for file in lock["files"] if file["path"] == WEIGHTS)
        shutil.rmtree(target)
        started = time.monotonic()
        copy = folder / "copy"
        subprocess.run(["curl", "-sSfL", "-o", copy, f"{hub}/{MODEL}/resolve/main/{WEIGHTS}"], check=True)
        theirs_sha256 = subprocess.run(["sha256sum", copy], check=True, capture_output=True, text=True).stdout.split()[0]
        theirs = time.monotonic() - started
        assert copy.stat().st_size == size and ours_sha256 == theirs_sha256
        copy.unlink()
        ratios.append(ours / theirs)
        resident.append(mib)
        print(f"round {number + 1}: pull {ours:.1f} s, curl and sha256sum {theirs:.1f} s, ratio {ours / theirs:.2f}, {mib:.0f} MiB", flush=True)
    print(f"median ratio {statistics.median(ratios):.2f}, largest resident set {max(resident):.0f} MiB", flush=True)
    return ours_sha256


def kills(program, hub, folder, size, n, sha256):
    before, target = sent(hub), folder / "killed"
    done = 0
    for number in range(n):
        process = subprocess.Popen(pull_command(program, target), env=environment(hub, folder), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        try:
            process.wait(random.uniform(0.3, 3.0))
            done += 1
            shutil.rmtree(target)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
    measured(pull_command(program, target), environment(hub, folder))
    hasher = hashlib.sha256()
    with open(target / WEIGHTS, "rb") as file:
        while block := file.read(1 << 20):
            hasher.update(block)
    assert hasher.hexdigest() == sha256, "wrong bytes"
    again = sent(hub) - before - size * (done + 1)
    print(f"{n} kills ({done} came after its end): right bytes, {again / 2**20:.0f} MiB fetched twice, {again / 2**20 / max(1, n - done):.1f} a kill", flush=True)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("program", type=Path)
    parser.add_argument("--bytes", type=int, default=2_271_145_830)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--work", type=Path)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=args.work) as scratch:
        scratch = Path(scratch)
        model = scratch / "hub" / MODEL
        shutil.copytree(FIXTURE, model)
        (model / WEIGHTS).unlink()
        (model / f"{WEIGHTS}.virtual").write_text(str(args.bytes))
        process, hub = stand_in(scratch / "hub")
        try:
            sha256 = speed(args.program.resolve(), hub, scratch, args.bytes, args.rounds)
            kills(args.program.resolve(), hub, scratch, args.bytes, args.kills, sha256)
        finally:
            process.terminate()


if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    main()
