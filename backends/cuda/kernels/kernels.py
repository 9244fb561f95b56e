"""The kernels of the cuda backend, in Triton. `compile.py` makes PTX and machine code of them, which are checked in: neither a build
nor a run needs Python, Triton or CUDA's tools.

Rows of tokens lie back to back (packed): there is no padding between texts. CU[t] is the first row of text t, CU[texts] the number of rows.
Numbers are f16 or bf16 in memory (in these comments: halves) and f32 in sums. A row of width C takes S numbers, S >= C: S is a multiple of
what the products need, and what is beyond C is zero.

No sum depends on what else is in the batch, nor is it split among programs: a text's numbers are the same bits in any batch.
"""

import triton
import triton.language as tl


@triton.jit
def attention(QKV, O, CU, BLOCKS, scale_log2e, H, D: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr):
    """O = softmax(Q K^T * scale) V, a head and BM queries of one text a program.

    QKV: [rows, 3, H, D] halves; O: [rows, H, D] halves; BLOCKS: [blocks, 2] i32, a text and which BM of its queries.
    scale_log2e: the scale times log2(e). Grid: (blocks, H).
    """
    block = tl.program_id(0)
    h = tl.program_id(1)
    t = tl.load(BLOCKS + 2 * block)
    first = tl.load(BLOCKS + 2 * block + 1) * BM
    start = tl.load(CU + t)
    n = tl.load(CU + t + 1) - start
    rows = first + tl.arange(0, BM)
    d = tl.arange(0, D)
    stride = 3 * H * D
    base = QKV + start.to(tl.int64) * stride + h * D
    q = tl.load(base + rows[:, None] * stride + d[None, :], mask=rows[:, None] < n, other=0.0)
    largest = tl.full([BM], -1.0e30, tl.float32)
    total = tl.zeros([BM], tl.float32)
    acc = tl.zeros([BM, D], tl.float32)
    cols = tl.arange(0, BN)
    kp = base + H * D + cols[None, :] * stride + d[:, None]
    vp = base + 2 * H * D + cols[:, None] * stride + d[None, :]
    full = (n // BN) * BN
    for _ in range(0, full, BN):
        scores = tl.dot(q, tl.load(kp)) * scale_log2e
        larger = tl.maximum(largest, tl.max(scores, 1))
        p = tl.math.exp2(scores - larger[:, None])
        shrink = tl.math.exp2(largest - larger)
        total = total * shrink + tl.sum(p, 1)
        v = tl.load(vp)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None])
        largest = larger
        kp += BN * stride
        vp += BN * stride
    if full < n:
        ok = full + cols < n
        scores = tl.dot(q, tl.load(kp, mask=ok[None, :], other=0.0)) * scale_log2e
        scores = tl.where(ok[None, :], scores, -1.0e30)
        larger = tl.maximum(largest, tl.max(scores, 1))
        p = tl.math.exp2(scores - larger[:, None])
        shrink = tl.math.exp2(largest - larger)
        total = total * shrink + tl.sum(p, 1)
        v = tl.load(vp, mask=ok[:, None], other=0.0)
        acc = tl.dot(p.to(v.dtype), v, acc * shrink[:, None])
    acc = acc / total[:, None]
    op = O + (start + rows[:, None]).to(tl.int64) * (H * D) + h * D + d[None, :]
    tl.store(op, acc.to(O.dtype.element_ty), mask=rows[:, None] < n)


@triton.jit
def erf(x):
    """Within 1.5e-7, without a branch.

    Source: Abramowitz and Stegun, Handbook of Mathematical Functions, 7.1.26.
    """
    z = tl.abs(x)
    t = 1.0 / (1.0 + 0.3275911 * z)
    p = t * (0.254829592 + t * (-0.284496736 + t * (1.421413741 + t * (-1.453152027 + t * 1.061405429))))
    y = 1.0 - p * tl.math.exp2(z * z * -1.4426950408889634)
    return tl.where(x < 0, -y, y)


@triton.jit
def tanh(x):
    """By way of exp2, of numbers that cannot overflow."""
    e = tl.math.exp2(tl.abs(x) * -2.8853900817779268)
    y = (1.0 - e) / (1.0 + e)
    return tl.where(x < 0, -y, y)


# A product is followed by one of these.
NONE: tl.constexpr = tl.constexpr(0)
GELU: tl.constexpr = tl.constexpr(1)
GELU_TANH: tl.constexpr = tl.constexpr(2)
RELU: tl.constexpr = tl.constexpr(3)
TANH: tl.constexpr = tl.constexpr(4)


@triton.jit
def linear(
    X, W, BIAS, O, M, N, K, ACT: tl.constexpr, BM: tl.constexpr, BN: tl.constexpr, BK: tl.constexpr, GROUP: tl.constexpr
):
    """O = act(X W^T + bias), a tile of BM x BN a program.

    X: [M, K] halves; W: [N, K] halves; BIAS: [N] f32; O: [M, N] halves. N is a multiple of BN, K of BK.
    Grid: (ceil(M / BM) * N / BN); tiles go in groups of GROUP rows of tiles, which share columns of W in the cache.
    """
    pid = tl.program_id(0)
    pm = tl.cdiv(M, BM)
    pn = N // BN
    group = pid // (GROUP * pn)
    first = group * GROUP
    size = tl.minimum(pm - first, GROUP)
    im = first + (pid % (GROUP * pn)) % size
    jn = (pid % (GROUP * pn)) // size
    rm = im * BM + tl.arange(0, BM)
    rn = jn * BN + tl.arange(0, BN)
    rk = tl.arange(0, BK)
    xp = X + tl.minimum(rm, M - 1)[:, None] * K + rk[None, :]
    wp = W + rn[None, :] * K + rk[:, None]
    acc = tl.zeros([BM, BN], tl.float32)
    for _ in range(0, K, BK):
        acc = tl.dot(tl.load(xp), tl.load(wp), acc)
        xp += BK
        wp += BK
    acc += tl.load(BIAS + rn)[None, :]
    if ACT == GELU:
        acc = acc * 0.5 * (1.0 + erf(acc * 0.7071067811865476))
    elif ACT == GELU_TANH:
        acc = acc * 0.5 * (1.0 + tanh(0.7978845608028654 * (acc + 0.044715 * acc * acc * acc)))
    elif ACT == RELU:
        acc = tl.maximum(acc, 0.0, propagate_nan=tl.PropagateNan.ALL)
    elif ACT == TANH:
        acc = tanh(acc)
    tl.store(O + rm[:, None] * N + rn[None, :], acc.to(O.dtype.element_ty), mask=rm[:, None] < M)


@triton.jit
def normalized(x, ok, C, eps):
    mean = tl.sum(x, 0) / C
    y = tl.where(ok, x - mean, 0.0)
    variance = tl.sum(y * y, 0) / C
    return y * tl.rsqrt(variance + eps)


@triton.jit
def add_norm(X, R, G, B, O, eps, C, S, BC: tl.constexpr):
    """O = LayerNorm(X + R), a row a program. X, R, O: [rows, S] halves; G, B: [C] f32; C <= S <= BC. Grid: (rows)."""
    r = tl.program_id(0).to(tl.int64) * S
    c = tl.arange(0, BC)
    ok = c < C
    x = tl.load(X + r + c, mask=ok, other=0.0).to(tl.float32) + tl.load(R + r + c, mask=ok, other=0.0).to(tl.float32)
    y = normalized(x, ok, C, eps)
    y = y * tl.load(G + c, mask=ok, other=0.0) + tl.load(B + c, mask=ok, other=0.0)
    tl.store(O + r + c, y.to(O.dtype.element_ty), mask=c < S)


@triton.jit
def embed_norm(IDS, POS, SEG, W, P, T, G, B, O, eps, C, S, BC: tl.constexpr):
    """O = LayerNorm(W[id] + P[position] + T[segment]), a token a program.

    IDS, POS, SEG: [rows] i32; W, P, T: [.., C] halves; G, B: [C] f32; O: [rows, S] halves; C <= S <= BC. Grid: (rows).
    """
    r = tl.program_id(0)
    c = tl.arange(0, BC)
    ok = c < C
    i = tl.load(IDS + r).to(tl.int64) * C
    p = tl.load(POS + r).to(tl.int64) * C
    s = tl.load(SEG + r).to(tl.int64) * C
    x = tl.load(W + i + c, mask=ok, other=0.0).to(tl.float32)
    x += tl.load(P + p + c, mask=ok, other=0.0).to(tl.float32)
    x += tl.load(T + s + c, mask=ok, other=0.0).to(tl.float32)
    y = normalized(x, ok, C, eps)
    y = y * tl.load(G + c, mask=ok, other=0.0) + tl.load(B + c, mask=ok, other=0.0)
    tl.store(O + r.to(tl.int64) * S + c, y.to(O.dtype.element_ty), mask=c < S)


@triton.jit
def first_rows(X, CU, O, S, BC: tl.constexpr):
    """O[t] = X[CU[t]], halves. Grid: (texts, ceil(S / BC))."""
    t = tl.program_id(0)
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    ok = c < S
    x = tl.load(X + tl.load(CU + t).to(tl.int64) * S + c, mask=ok, other=0.0)
    tl.store(O + t.to(tl.int64) * S + c, x, mask=ok)


@triton.jit
def largest_or_nan(a, b):
    return tl.maximum(a, b, propagate_nan=tl.PropagateNan.ALL)


# How the rows of a text become one.
CLS: tl.constexpr = tl.constexpr(0)
LAST: tl.constexpr = tl.constexpr(1)
MEAN: tl.constexpr = tl.constexpr(2)
MAX: tl.constexpr = tl.constexpr(3)


@triton.jit
def pool(X, CU, O, C, S, KIND: tl.constexpr, BR: tl.constexpr, BC: tl.constexpr):
    """O[t] = one row of the rows of text t. X: [rows, S] halves; O: [texts, C] f32. Grid: (texts, ceil(C / BC))."""
    t = tl.program_id(0)
    start = tl.load(CU + t)
    n = tl.load(CU + t + 1) - start
    c = tl.program_id(1) * BC + tl.arange(0, BC)
    ok = c < C
    if KIND == CLS:
        y = tl.load(X + start.to(tl.int64) * S + c, mask=ok, other=0.0).to(tl.float32)
    elif KIND == LAST:
        y = tl.load(X + (start + n - 1).to(tl.int64) * S + c, mask=ok, other=0.0).to(tl.float32)
    else:
        r = tl.arange(0, BR)
        xp = X + (start + r[:, None]).to(tl.int64) * S + c[None, :]
        if KIND == MEAN:
            acc = tl.zeros([BR, BC], tl.float32)
            for j in range(0, n, BR):
                inside = (j + r < n)[:, None] & ok[None, :]
                acc += tl.load(xp, mask=inside, other=0.0).to(tl.float32)
                xp += BR * S
            y = tl.sum(acc, 0) / n
        else:
            acc = tl.full([BR, BC], float("-inf"), tl.float32)
            for j in range(0, n, BR):
                inside = (j + r < n)[:, None] & ok[None, :]
                acc = largest_or_nan(acc, tl.load(xp, mask=inside, other=float("-inf")).to(tl.float32))
                xp += BR * S
            y = tl.reduce(acc, 0, largest_or_nan)
    tl.store(O + t.to(tl.int64) * C + c, y, mask=ok)


@triton.jit
def row_dot(X, W, O, bias, C, S, BC: tl.constexpr):
    """O[r] = X[r] . W + bias. X: [rows, S] halves; W: [C] f32; O: [rows] f32. Grid: (rows)."""
    r = tl.program_id(0)
    acc = tl.zeros([BC], tl.float32)
    for j in range(0, C, BC):
        c = j + tl.arange(0, BC)
        ok = c < C
        x = tl.load(X + r.to(tl.int64) * S + c, mask=ok, other=0.0).to(tl.float32)
        acc += x * tl.load(W + c, mask=ok, other=0.0)
    tl.store(O + r, tl.sum(acc, 0) + bias)
