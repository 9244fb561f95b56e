# Shortcuts; `just` lists them. Each is one command that can be typed without just.

_default:
    @just --list

# Sets up and serves the demo on port 9100.
demo *args:
    scripts/demo {{ args }}

# Sets up and runs all tests; arguments go to cargo test.
test *args:
    scripts/test {{ args }}

# Everything that must hold before a change lands.
ci:
    .ci/run

# Measures a full-size random bge-m3 beside sentence-transformers; PYTHON is a venv that has it.
bench python model="models/bge-m3-random":
    test -e {{ model }} || {{ python }} benches/make_bge_m3.py {{ model }}
    cargo build --release --locked
    test -e {{ model }}/onnx/model.onnx || target/release/embedgate convert {{ model }}
    {{ python }} benches/compare_bge_m3.py {{ model }}

# Makes the kernels of the cuda backend anew; `just kernels --check` compares.
kernels *args:
    scripts/kernels {{ args }}

# Runs the cpu backend's tests under AddressSanitizer, on x86-64 Linux; scripts/setup must have been run.
sanitize:
    RUSTC_BOOTSTRAP=1 RUSTFLAGS="-Zsanitizer=address" cargo test --package embedgate-cpu --locked --lib --test engine \
        --test cross_encoder --target x86_64-unknown-linux-gnu --target-dir target/sanitize
