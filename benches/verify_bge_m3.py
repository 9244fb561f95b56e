"""Holds all outputs of a full-size bge-m3, as embedgate serves them over HTTP, to FlagEmbedding's own code in f32.

    python3 -m venv v && v/bin/pip install FlagEmbedding==1.4.2 transformers==5.23.0 torch==2.15.0
    v/bin/python benches/make_bge_m3.py models/bge-m3-random && target/release/embedgate convert models/bge-m3-random
    v/bin/python benches/verify_bge_m3.py models/bge-m3-random
    v/bin/python benches/verify_bge_m3.py models/bge-m3-random --cost

Texts in 26 scripts and of 2 to 8192 tokens go to FlagEmbedding one by one, and to each backend one by one and then all in
one request, but for the longest, which a batch never holds beside others. Dense and ColBERT vectors must have a cosine of
at least 0.99999, sparse weights the same tokens and no difference above 1e-4; a token that only one side has, with a weight
below that, is counted apart. Exits with 1 where something does not hold.

The random model's tokenizer knows few of these scripts: where the model has room for more tokens, the characters that are
missing are added to it, in a folder beside the model that is deleted at the end.

With --cost: the time of all outputs against dense alone at 8 x 128 tokens, by two servers that take turns, at most 1.15; and
the peak of resident memory from ready on, at most 3 % more and the rows of ColBERT of one request.
"""

import argparse
import base64
import contextlib
import json
import os
import pathlib
import random
import statistics
import sys
import tempfile
import time

import numpy
from compare_bge_m3 import Server, texts_of
from tokenizers import Tokenizer

BACKENDS = ("cpu", "candle", "onnx")
ALL = {"outputs": ["dense", "sparse", "colbert"], "colbert_format": "base64"}
COSINE, WEIGHT, RATIO, GROWTH = 0.99999, 1e-4, 1.15, 0.03
LENGTHS = (3, 8, 16, 64, 128, 512, 2048, 8192)
MARGINS = ("", " ", "\n\t ", "a", "!!!???...", "naïve ＡＢＣ ½ ﬁne", "zero\u200bwidth e\u0301", "中文 и English в одном 텍스트")
SCRIPTS = {
    "Latin": "Zażółć gęślą jaźń, während der Mond über den Häusern steht.",
    "Cyrillic": "Кошка сидит на коврике у тёплой печки.",
    "Greek": "Η γάτα κάθεται στο χαλί δίπλα στο παράθυρο.",
    "Armenian": "Կատուն նստած է գորգի վրա։",
    "Georgian": "კატა ზის ხალიჩაზე ფანჯარასთან.",
    "Hebrew": "החתול יושב על המחצלת ליד החלון.",
    "Arabic": "القطة تجلس على السجادة قرب النافذة.",
    "Devanagari": "बिल्ली खिड़की के पास चटाई पर बैठी है।",
    "Bengali": "বিড়ালটি জানালার পাশে মাদুরে বসে আছে।",
    "Gurmukhi": "ਬਿੱਲੀ ਚਟਾਈ ਉੱਤੇ ਬੈਠੀ ਹੈ।",
    "Gujarati": "બિલાડી સાદડી પર બેઠી છે.",
    "Tamil": "பூனை பாயில் அமர்ந்திருக்கிறது.",
    "Telugu": "పిల్లి చాప మీద కూర్చుంది.",
    "Kannada": "ಬೆಕ್ಕು ಚಾಪೆಯ ಮೇಲೆ ಕುಳಿತಿದೆ.",
    "Malayalam": "പൂച്ച പായയിൽ ഇരിക്കുന്നു.",
    "Sinhala": "පූසා පැදුර මත වාඩි වී සිටී.",
    "Thai": "แมวนั่งอยู่บนเสื่อใกล้หน้าต่าง",
    "Lao": "ແມວນັ່ງຢູ່ເທິງເສື່ອ",
    "Khmer": "ឆ្មាអង្គុយលើកន្ទេល",
    "Burmese": "ကြောင်သည် ဖျာပေါ်တွင် ထိုင်နေသည်။",
    "Tibetan": "བོད་ཡིག་ནི་སྐད་རིགས་རྙིང་པ་ཞིག་ཡིན།",
    "Ethiopic": "ድመቷ ምንጣፉ ላይ ተቀምጣለች።",
    "Hangul": "고양이가 창가의 매트 위에 앉아 있다.",
    "Kana": "ねこはマットのうえにすわっている。",
    "Han": "猫坐在窗边的垫子上,檢索增強生成結合了向量資料庫。",
    "emoji": "👩‍👩‍👧‍👦 🇫🇷 👍🏽 🎉🚀 ❤️",
}


@contextlib.contextmanager
def knowing(model: pathlib.Path, texts: list):
    """The model's folder; or one of links to it and a tokenizer with the characters that it lacks, if there is room."""
    tokenizer = json.loads((model / "tokenizer.json").read_text())
    known = {piece for piece, _ in tokenizer["model"]["vocab"]}
    normalizer = Tokenizer.from_file(str(model / "tokenizer.json")).normalizer
    missing = sorted(set("".join(normalizer.normalize_str(t) for t in texts)) - known - set(" \n\t"))
    room = json.loads((model / "config.json").read_text())["vocab_size"] - len(known)
    if not missing or len(missing) > room:
        yield model
        return
    with tempfile.TemporaryDirectory(dir=model.parent, prefix=f"{model.name}-") as folder:
        out = pathlib.Path(folder)
        for file in model.iterdir():
            if file.name not in ("tokenizer.json", "sentencepiece.bpe.model"):
                (out / file.name).symlink_to(file)
        tokenizer["model"]["vocab"] += [[character, -12.0] for character in missing]
        (out / "tokenizer.json").write_text(json.dumps(tokenizer))
        print(f"{len(missing)} characters added to the tokenizer, since the model has room for {room} more tokens")
        yield out


def words_of(tokenizer: Tokenizer) -> list:
    """Words of one token each, in any script."""
    single = [t[1:] for t in sorted(tokenizer.get_vocab()) if t.startswith("▁") and t[1:].isalpha()]
    return [w for w in single if len(tokenizer.encode(w).ids) == 3]


def served(answer: bytes) -> list:
    """Dense vector, {token id: weight} and ColBERT rows of each text."""
    results = []
    for item in json.loads(answer)["data"]:
        sparse, colbert = item["sparse_embedding"], item["colbert_embedding"]
        rows = numpy.frombuffer(base64.b64decode(colbert["data"]), "<f4").reshape(colbert["shape"])
        dense = numpy.frombuffer(base64.b64decode(item["embedding"]), "<f4")
        results.append((dense, dict(zip(sparse["indices"], sparse["values"], strict=True)), rows))
    return results


def reference(model: pathlib.Path, texts: list, threads: int) -> list:
    """The same by FlagEmbedding, each text alone."""
    import torch
    from FlagEmbedding import BGEM3FlagModel

    torch.set_num_threads(threads)
    library = BGEM3FlagModel(
        str(model), use_fp16=False, devices="cpu", return_sparse=True, return_colbert_vecs=True, passage_max_length=8192
    )
    results = []
    for text in texts:
        got = library.encode([text], batch_size=2)  # a size above 1 shows no progress bar
        sparse = {int(id_): float(weight) for id_, weight in got["lexical_weights"][0].items()}
        results.append((got["dense_vecs"][0], sparse, got["colbert_vecs"][0]))
    return results


def cosines(a: numpy.ndarray, b: numpy.ndarray) -> numpy.ndarray:
    a, b = a.astype("f8"), b.astype("f8")
    return (a * b).sum(-1) / numpy.sqrt((a * a).sum(-1) * (b * b).sum(-1))


class Comparison:
    """The worst of two lists of results."""

    HEAD = ["dense cosine, least", "ColBERT cosine, least", "ColBERT rows", "largest difference of a number",
            "sparse weights", "largest difference of a weight", "token sets that differ", "of these only by weights < 1e-4"]

    def __init__(self, got: list, expected: list) -> None:
        self.dense, self.colbert, self.number, self.weight = 1.0, 1.0, 0.0, 0.0
        self.rows = self.weights = self.differing = self.by_little = 0
        for (dense, sparse, colbert), (dense_, sparse_, colbert_) in zip(got, expected, strict=True):
            assert colbert.shape == colbert_.shape, f"{colbert.shape} rows of ColBERT for {colbert_.shape}"
            self.dense = min(self.dense, cosines(dense, dense_))
            self.colbert = min(self.colbert, cosines(colbert, colbert_).min())
            self.number = max(self.number, abs(dense - dense_).max(), abs(colbert - colbert_).max())
            self.rows += len(colbert)
            self.weights += len(sparse_)
            self.weight = max([self.weight] + [abs(sparse[t] - sparse_[t]) for t in sparse.keys() & sparse_.keys()])
            odd = [sparse.get(t, sparse_.get(t)) for t in sparse.keys() ^ sparse_.keys()]
            self.differing += bool(odd)
            self.by_little += bool(odd) and max(odd) < WEIGHT

    def holds(self) -> bool:
        near = self.dense >= COSINE and self.colbert >= COSINE and self.weight <= WEIGHT
        # Without a weight there is nothing that could differ.
        return bool(near and self.weights > 0 and self.differing == self.by_little)

    def cells(self) -> list:
        return [f"{self.dense:.9f}", f"{self.colbert:.9f}", self.rows, f"{self.number:.1e}", self.weights,
                f"{self.weight:.1e}", self.differing, self.by_little]


def batches_run(server: Server) -> int:
    server.connection.request("GET", "/metrics")
    lines = server.connection.getresponse().read().decode().splitlines()
    return sum(int(float(line.split()[-1])) for line in lines if line.startswith("embedgate_batch_sequences_count"))


def print_table(head: list, rows: list) -> None:
    for cells in (head, ["---"] * len(head), *rows):
        print("| " + " | ".join(str(cell) for cell in cells) + " |")


def verify(model: pathlib.Path, args: argparse.Namespace) -> bool:
    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    rng, words = random.Random(1), words_of(tokenizer)
    texts = [*MARGINS, *SCRIPTS.values(), *(texts_of(rng, words, 1, n)[0] for n in LENGTHS)]
    distinct = {tuple(tokenizer.encode(t).ids): i for i, t in enumerate(texts)}  # blank texts have equal tokens
    unknown = [name for name, text in SCRIPTS.items() if tokenizer.token_to_id("<unk>") in tokenizer.encode(text).ids]
    print(f"{len(texts)} texts in {len(SCRIPTS)} scripts (with unknown tokens: {', '.join(unknown) or 'none'})")
    print(f"tokens: {', '.join(map(str, sorted({len(ids) for ids in distinct})))}")
    expected = reference(model, texts, args.threads)
    dense = numpy.stack([expected[i][0] for i in distinct.values()]).astype("f8")
    others = (dense @ dense.T)[numpy.triu_indices(len(dense), 1)]
    print(f"dense cosine of different texts: {others.min():.6f} to {others.max():.6f}\n", flush=True)

    rows, holds = [], True
    for backend in BACKENDS:
        server = Server(args.program, str(model), backend, args.threads, "max_batch_tokens = 8192")
        alone = [served(server.embed([text], **ALL))[0] for text in texts]
        before = batches_run(server)
        mixed = served(server.embed(texts[:-1], **ALL))
        n_batches = batches_run(server) - before
        server.stop()
        for what, comparison in (
            (f"{backend}, {len(texts)} alone", Comparison(alone, expected)),
            (f"{backend}, {len(mixed)} in {n_batches} batches", Comparison(mixed, expected[:-1])),
            (f"{backend}, batches against alone", Comparison(mixed, alone[:-1])),
        ):
            rows.append([what, *comparison.cells()])
            holds &= comparison.holds()
    print_table(["", *Comparison.HEAD], rows)
    return holds


def cost(model: pathlib.Path, args: argparse.Namespace) -> bool:
    n, tokens = 8, 128
    rng, words = random.Random(1), words_of(Tokenizer.from_file(str(model / "tokenizer.json")))
    rows, holds = [], True
    for backend in BACKENDS:
        settings = f"max_batch_tokens = {n * tokens}"
        servers = [Server(args.program, str(model), backend, args.threads, settings) for _ in range(2)]
        for server in servers:
            pathlib.Path(f"/proc/{server.process.pid}/clear_refs").write_text("5")  # the peak starts anew
        seconds = [[], []]
        for round_ in range(args.rounds + 1):
            texts = texts_of(rng, words, n, tokens)
            for which in (0, 1) if round_ % 2 else (1, 0):
                started = time.perf_counter()
                answer = servers[which].embed(texts, **(ALL if which else {}))
                if round_ > 0:  # the first warms up
                    seconds[which].append(time.perf_counter() - started)
                if which:
                    outputs_mib = sum(rows_.nbytes for *_, rows_ in served(answer)) / 2**20
        ratios = [b / a for a, b in zip(*seconds)]
        ratio = statistics.median(ratios)
        dense_mib, all_mib = (server.memory_mib("VmHWM") for server in servers)
        for server in servers:
            server.stop()
        growth = all_mib - dense_mib
        holds &= ratio <= RATIO and growth <= GROWTH * dense_mib + outputs_mib
        rows.append([backend, *(f"{statistics.median(s):.2f} s" for s in seconds), f"{ratio:.3f}",
                     f"{min(ratios):.2f} to {max(ratios):.2f}",
                     dense_mib, all_mib, f"{growth} ({growth / dense_mib:.1%})", f"{outputs_mib:.1f}"])
    print(f"{n} x {tokens} tokens, {args.threads} threads, medians of {args.rounds} pairs in turn\n")
    print_table(["", "dense alone", "all outputs", "ratio", "all pairs", "peak MiB, dense alone", "all outputs", "growth",
                 "ColBERT rows of a request, MiB"], rows)
    return holds


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("model", type=pathlib.Path)
    parser.add_argument("--program", default="target/release/embedgate")
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--rounds", type=int, default=9, help="of --cost")
    parser.add_argument("--cost", action="store_true", help="measure time and memory instead")
    args = parser.parse_args()
    with knowing(args.model.resolve(), [*MARGINS, *SCRIPTS.values()]) as model:
        holds = (cost if args.cost else verify)(model, args)
    sys.exit("some of it does not hold" if not holds else 0)


if __name__ == "__main__":
    main()
