"""compile.py OUT: makes PTX and machine code of every kernel, for every kind of card, on a machine without one, and the table by which they
are launched. Deterministic: the same sources make the same bytes.

Needs triton and numpy as requirements.txt pins them.
"""

import hashlib
import importlib.util
import json
import os
import pathlib
import sys

TRITON = pathlib.Path(importlib.util.find_spec("triton").submodule_search_locations[0])
# Sums and products are fused where they can be; no path of this machine gets into PTX. Triton has two assemblers: machine code of the newer
# one, which it would take for 9.0, is refused by drivers before CUDA 13.
os.environ.update(
    TRITON_DEFAULT_FP_FUSION="1",
    TRITON_DISABLE_LINE_INFO="1",
    TRITON_PTXAS_BLACKWELL_PATH=str(TRITON / "backends/nvidia/bin/ptxas"),
)

import triton
import zstandard
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

import kernels

HERE = pathlib.Path(__file__).resolve().parent
# Compute capability: code for 8.0 runs on all of 8.x, and its PTX on whatever comes later; code for 9.0 on 9.0 alone.
ARCHITECTURES = [80, 90]
# Any driver since CUDA 12.0 takes it, and machine code with this version of its file's format.
PTX_VERSION = 80
ELF_ABI = 7
# Of each image among the others, in bytes: drivers read words of them.
ALIGNMENT = 64
NUMBERS = {"f16": "*fp16", "bf16": "*bf16"}
INT, FLOAT = "*i32", "*fp32"


def jobs():
    """Each kernel: its name, function, types, constants, warps and stages of a loop."""
    for half, h in NUMBERS.items():
        attention = dict(QKV=h, O=h, CU=INT, BLOCKS=INT, scale_log2e="fp32", H="i32")
        for d, bm in ((32, 64), (64, 64), (64, 128), (128, 64)):
            yield f"attention_{half}_d{d}_m{bm}", kernels.attention, attention, dict(D=d, BM=bm, BN=64), 4, 3
        linear = dict(X=h, W=h, BIAS=FLOAT, O=h, M="i32", N="i32", K="i32")
        for bm, bn, warps, acts in ((64, 64, 4, range(5)), (64, 128, 4, (0, 1)), (128, 128, 8, (0, 1)), (128, 256, 8, (0, 1))):
            for act in acts:
                constants = dict(ACT=act, BM=bm, BN=bn, BK=64, GROUP=8)
                yield f"linear_{half}_{bm}x{bn}_a{act}", kernels.linear, linear, constants, warps, 3
        norm = dict(G=FLOAT, B=FLOAT, O=h, eps="fp32", C="i32", S="i32")
        for bc in (256, 1024, 4096):
            yield f"add_norm_{half}_{bc}", kernels.add_norm, dict(X=h, R=h, **norm), dict(BC=bc), 4, 3
            tables = dict(IDS=INT, POS=INT, SEG=INT, W=h, P=h, T=h)
            yield f"embed_norm_{half}_{bc}", kernels.embed_norm, dict(**tables, **norm), dict(BC=bc), 4, 3
        yield f"first_rows_{half}", kernels.first_rows, dict(X=h, CU=INT, O=h, S="i32"), dict(BC=256), 4, 3
        for kind, name in enumerate(("cls", "last", "mean", "max")):
            types = dict(X=h, CU=INT, O=FLOAT, C="i32", S="i32")
            yield f"pool_{half}_{name}", kernels.pool, types, dict(KIND=kind, BR=32, BC=64), 4, 3
        types = dict(X=h, W=FLOAT, O=FLOAT, bias="fp32", C="i32", S="i32")
        yield f"row_dot_{half}", kernels.row_dot, types, dict(BC=256), 4, 3


def build(function, types, constants, warps, stages, architecture):
    names = function.arg_names
    signature = {name: types.get(name, "constexpr") for name in names}
    # Rows and weights begin at a multiple of 256 bytes, and widths are multiples of 64: the launcher promises so. What it tells of a batch
    # (whole numbers) lies anywhere.
    def is_aligned(name):
        return (signature[name].startswith("*") and signature[name] != INT) or (name in ("N", "K", "S") and signature[name] == "i32")

    aligned = [i for i, name in enumerate(names) if is_aligned(name)]
    source = ASTSource(
        fn=function,
        signature=signature,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(i,): [["tt.divisibility", 16]] for i in aligned},
    )
    options = dict(num_warps=warps, num_stages=stages, ptx_version=PTX_VERSION)
    return triton.compile(source, target=GPUTarget("cuda", architecture, 32), options=options)


def sources():
    """What the bytes depend on."""
    names = ("kernels.py", "compile.py", "requirements.txt")
    return hashlib.sha256(b"".join((HERE / name).read_bytes() for name in names)).hexdigest()


def main():
    out = pathlib.Path(sys.argv[1])
    out.mkdir(parents=True, exist_ok=True)
    table, data = {"sources": sources(), "kernels": []}, bytearray()

    def add(image):
        start = len(data)
        data.extend(image + bytes(-len(image) % ALIGNMENT))
        return [start, len(image)]

    built = []
    for architecture in ARCHITECTURES:
        for name, *job in jobs():
            kernel = build(*job, architecture)
            m = kernel.metadata
            assert m.global_scratch_size == 0 and m.profile_scratch_size == 0, name
            assert m.num_ctas == 1 and m.tmem_size == 0, name
            assert kernel.asm["cubin"][8] == ELF_ABI, name
            built.append((architecture, name, job, m, kernel.asm))
    # Like beside like, so that they are packed well.
    order = sorted(built, key=lambda b: b[:2])
    ptx = [add(b[4]["ptx"].encode() + b"\0") for b in order]
    code = [add(b[4]["cubin"]) for b in order]
    for (architecture, name, (function, types, constants, *_), m, _), ptx, code in zip(order, ptx, code):
        half = next(half for half, pointer in NUMBERS.items() if pointer in types.values())
        entry = dict(name=name, architecture=architecture, kind=function.__name__, format=half, constants=constants)
        entry |= dict(entry=m.name, shared=m.shared, threads=32 * m.num_warps, ptx=ptx, code=code)
        table["kernels"].append(entry)
    (out / "table.json").write_text(json.dumps(table, indent=1) + "\n")
    packed = zstandard.ZstdCompressor(level=22).compress(bytes(data))
    (out / "images.zst").write_bytes(packed)
    print(f"{len(order)} kernels: {len(data) >> 10} KiB, packed {len(packed) >> 10} KiB")


main()
