//! All backends against vectors made by the reference libraries, and against the contract.

use embedgate::TextTokenizer;
use embedgate_core::{
    Backend, EmbeddingBatch, Head, ModelFolder, Outputs, Pooling, Precision, TokenBatch,
    conformance,
};
use embedgate_test_support::{
    Gateway, LIKE, Reference, cosine, max_difference, texts, tiny_bge_m3,
};
use serde_json::json;

use crate::{
    backends::{candle, cpu, cpu_in, onnx, onnx_in, tokenizer},
    support::{minilm, runs},
};

/// The least cosine with a reference library, which sums in another order.
const COSINE: f64 = 0.99999;

#[expect(clippy::cast_possible_truncation, reason = "the result is f32")]
fn normalized(row: &[f32]) -> Vec<f32> {
    let length = row
        .iter()
        .map(|x| f64::from(*x).powi(2))
        .sum::<f64>()
        .sqrt();
    row.iter()
        .map(|x| (f64::from(*x) / length) as f32)
        .collect()
}

/// Runs texts in batches of `size`, in order.
pub(crate) fn run(
    backend: &mut dyn Backend,
    tokenizer: &TextTokenizer,
    texts: &[String],
    size: usize,
    outputs: Outputs,
) -> Vec<EmbeddingBatch> {
    let ids: Vec<Vec<u32>> = texts
        .iter()
        .map(|text| tokenizer.encode(text).unwrap().ids)
        .collect();
    let batches = ids
        .chunks(size)
        .map(|chunk| chunk.iter().map(Vec::as_slice).collect::<TokenBatch>());
    batches
        .map(|batch| backend.embed(&batch, outputs).unwrap())
        .collect()
}

pub(crate) fn dense_rows(batches: &[EmbeddingBatch]) -> Vec<Vec<f32>> {
    let matrices = batches
        .iter()
        .map(|batch| batch.vectors(Head::Dense).unwrap());
    matrices
        .flat_map(|matrix| (0..matrix.rows()).map(|i| normalized(matrix.row(i))))
        .collect()
}

fn assert_like(expected: &[Vec<f32>], got: &[Vec<f32>], how: &str) {
    assert_eq!(expected.len(), got.len(), "{how}");
    for (i, (expected, got)) in expected.iter().zip(got).enumerate() {
        let (cosine, far) = (cosine(expected, got), max_difference(expected, got));
        assert!(
            cosine >= COSINE && far <= LIKE,
            "text {i} {how}: cosine {cosine}, difference {far}"
        );
    }
}

fn minilm_equals_sentence_transformers(mut backend: Box<dyn Backend>, folder: &ModelFolder) {
    let (texts, tokenizer) = (texts(), tokenizer(folder));
    assert!(texts.len() >= 200);
    assert_eq!(folder.pooling, Some(Pooling::MEAN));
    let reference = Reference::open("minilm_reference.safetensors");
    let counts: Vec<usize> = texts
        .iter()
        .map(|text| tokenizer.encode(text).unwrap().ids.len())
        .collect();
    assert_eq!(counts, reference.numbers("tokens"));
    let expected = reference.rows("vectors", 384);
    for size in [1, 7, texts.len()] {
        let got = dense_rows(&run(
            backend.as_mut(),
            &tokenizer,
            &texts,
            size,
            Outputs::DENSE,
        ));
        assert_like(&expected, &got, &format!("in batches of {size}"));
    }
}

fn tiny_bge_m3_equals_flag_embedding(mut backend: Box<dyn Backend>, folder: &ModelFolder) {
    let (texts, tokenizer) = (texts(), tokenizer(folder));
    assert_eq!(folder.pooling, Some(Pooling::CLS));
    assert!(folder.normalize);
    let reference = Reference::open("tiny_bge_m3_reference.safetensors");
    let counts: Vec<usize> = texts
        .iter()
        .map(|text| tokenizer.encode(text).unwrap().ids.len())
        .collect();
    assert_eq!(counts, reference.numbers("tokens"));
    assert!(
        counts.iter().any(|n| *n > 7000),
        "a long text is among them"
    );
    for size in [1, 9] {
        let batches = run(backend.as_mut(), &tokenizer, &texts, size, Outputs::BGE_M3);
        let how = format!("in batches of {size}");
        assert_like(&reference.rows("dense", 64), &dense_rows(&batches), &how);
        assert_colbert(&reference, &batches, &how);
        assert_sparse(&reference, &batches, &how);
    }
}

fn assert_colbert(reference: &Reference, batches: &[EmbeddingBatch], how: &str) {
    let got: Vec<_> = batches
        .iter()
        .flat_map(|batch| batch.rows(Head::MultiVector).unwrap())
        .collect();
    let rows = reference.rows("colbert", 64);
    for (i, ends) in reference.numbers("colbert_offsets").windows(2).enumerate() {
        let got: Vec<Vec<f32>> = (0..got[i].rows())
            .map(|row| normalized(got[i].row(row)))
            .collect();
        assert_like(
            &rows[ends[0]..ends[1]],
            &got,
            &format!("ColBERT of text {i} {how}"),
        );
    }
}

fn assert_sparse(reference: &Reference, batches: &[EmbeddingBatch], how: &str) {
    let got: Vec<_> = batches
        .iter()
        .flat_map(|batch| batch.weights(Head::Sparse).unwrap())
        .collect();
    let (ids, weights) = (
        reference.numbers("sparse_ids"),
        reference.floats("sparse_weights"),
    );
    for (i, ends) in reference.numbers("sparse_offsets").windows(2).enumerate() {
        let got_ids: Vec<usize> = got[i].indices.iter().map(|id| *id as usize).collect();
        assert_eq!(
            got_ids,
            ids[ends[0]..ends[1]],
            "sparse ids of text {i} {how}"
        );
        let far = max_difference(&got[i].values, &weights[ends[0]..ends[1]]);
        assert!(
            far <= LIKE,
            "sparse weights of text {i} {how} differ by {far}"
        );
    }
}

#[test]
fn cpu_minilm_equals_sentence_transformers() {
    let (backend, folder) = cpu(&minilm());
    minilm_equals_sentence_transformers(backend, &folder);
}

#[test]
fn cpu_tiny_bge_m3_equals_flag_embedding() {
    let (backend, folder) = cpu(&tiny_bge_m3());
    tiny_bge_m3_equals_flag_embedding(backend, &folder);
}

/// How far coarser products move the vectors of the real model, over texts in many scripts.
#[test]
fn coarser_precisions_stay_near_sentence_transformers() {
    let (texts, tokenizer) = (texts(), tokenizer(&ModelFolder::open(&minilm()).unwrap()));
    let expected = Reference::open("minilm_reference.safetensors").rows("vectors", 384);
    let mut backends = vec![(onnx_in(Precision::Int8, &minilm()), 0.9993, 0.998)];
    for (precision, mean, least) in [
        (Precision::Bf16, 0.99995, 0.9998),
        (Precision::Int8, 0.9993, 0.998),
    ] {
        if runs(precision) {
            backends.push((cpu_in(precision, &minilm()), mean, least));
        }
    }
    for ((mut backend, _), mean, least) in backends {
        let info = backend.info();
        let how = format!("{} in {}", info.backend, info.precision);
        let got = run(backend.as_mut(), &tokenizer, &texts, 9, Outputs::DENSE);
        assert_near(&how, &dense_rows(&got), &expected, mean, least);
    }
}

/// Cosines of so much on average and at least.
fn assert_near(how: &str, got: &[Vec<f32>], expected: &[Vec<f32>], mean: f64, least: f64) {
    assert_eq!(got.len(), expected.len());
    let pairs = got.iter().zip(expected);
    let cosines: Vec<f64> = pairs.map(|(a, b)| cosine(a, b)).collect();
    let of_all = cosines.iter().sum::<f64>() / cosines.len() as f64;
    let worst = cosines.iter().copied().fold(1.0, f64::min);
    assert!(of_all >= mean && worst >= least, "{how}: {of_all} {worst}");
}

#[tokio::test]
async fn int8_stays_near_sentence_transformers_with_older_instructions() {
    let path = minilm();
    let backend = "{ type = \"cpu\", precision = \"int8\", threads = 2 }";
    let config = format!(
        "[auth]\nmode = \"none\"\n[log]\nformat = \"json\"\n[models.m]\npath = {path:?}\nbackend = {backend}\n"
    );
    let expected = Reference::open("minilm_reference.safetensors").rows("vectors", 384);
    let start = |most| Gateway::start_loading(&config, &[("DNNL_MAX_CPU_ISA", most)]);
    if runs(Precision::Int8) {
        let mut gateway = start("AVX512_CORE_VNNI");
        gateway.wait_until_ready();
        let got = gateway.vectors("m", &json!(texts())).await;
        assert_near("without bf16", &got, &expected, 0.9993, 0.998);
    }
    // Without dot products of bytes it would not.
    let (status, log) = start("AVX512_CORE").wait();
    assert_eq!(status.code(), Some(1));
    assert!(log.contains("cannot run a model in int8"), "{log}");
}

#[test]
fn candle_minilm_equals_sentence_transformers() {
    let (backend, folder) = candle(&minilm());
    minilm_equals_sentence_transformers(backend, &folder);
}

#[test]
fn onnx_minilm_equals_sentence_transformers() {
    let (backend, folder) = onnx(&minilm());
    minilm_equals_sentence_transformers(backend, &folder);
}

#[test]
fn candle_tiny_bge_m3_equals_flag_embedding() {
    let (backend, folder) = candle(&tiny_bge_m3());
    tiny_bge_m3_equals_flag_embedding(backend, &folder);
}

#[test]
fn onnx_tiny_bge_m3_equals_flag_embedding() {
    let (backend, folder) = onnx(&tiny_bge_m3());
    tiny_bge_m3_equals_flag_embedding(backend, &folder);
}

#[test]
fn every_backend_and_model_keeps_the_contract() {
    for (mut backend, folder) in [
        cpu(&minilm()),
        candle(&minilm()),
        onnx(&minilm()),
        cpu(&tiny_bge_m3()),
        candle(&tiny_bge_m3()),
        onnx(&tiny_bge_m3()),
        onnx_in(Precision::Int8, &minilm()),
        onnx_in(Precision::Int8, &tiny_bge_m3()),
    ] {
        let kept = conformance::check(backend.as_mut());
        assert_eq!(
            kept,
            Ok(()),
            "{} {}",
            backend.info().backend,
            folder.path.display()
        );
    }
}
