//! All backends against vectors made by the reference libraries, and against the contract.

use std::path::Path;

use embedgate::model::tokenizer::TextTokenizer;
use embedgate_candle::CandleBackend;
use embedgate_core::{
    Backend, EmbeddingBatch, ModelFolder, Outputs, Pooling, Precision, TokenBatch, conformance,
    library::Candidates,
};
use embedgate_cpu::CpuBackend;
use embedgate_onnx::OnnxBackend;
use safetensors::SafeTensors;
use serde_json::json;

use crate::support::{
    Gateway, converted_in, cosine, fixtures, max_difference, minilm, onednn, root, runs, texts,
    tiny_bge_m3,
};

/// What the reference promises: f32 on another library sums in another order.
const COSINE: f64 = 0.99999;
const DIFFERENCE: f32 = 1e-4;

fn tokenizer(folder: &ModelFolder) -> TextTokenizer {
    TextTokenizer::load(&folder.path, folder.max_sequence_tokens, folder.lower_case).unwrap()
}

fn candle(path: &Path) -> (Box<dyn Backend>, ModelFolder) {
    let folder = ModelFolder::open(path).unwrap();
    let options = embedgate_candle::Options {
        pooling: folder.pooling.unwrap(),
        max_sequence_tokens: folder.max_sequence_tokens,
        special_token_ids: tokenizer(&folder).special_token_ids(),
        threads: 2,
    };
    (
        Box::new(CandleBackend::load(&folder, options).unwrap()),
        folder,
    )
}

fn cpu(path: &Path) -> (Box<dyn Backend>, ModelFolder) {
    cpu_in(Precision::F32, path)
}

fn cpu_in(precision: Precision, path: &Path) -> (Box<dyn Backend>, ModelFolder) {
    let folder = ModelFolder::open(path).unwrap();
    let options = embedgate_cpu::Options {
        pooling: folder.pooling.unwrap(),
        max_sequence_tokens: folder.max_sequence_tokens,
        special_token_ids: tokenizer(&folder).special_token_ids(),
        threads: 2,
        cores: Vec::new(),
        precision,
    };
    let library = embedgate_cpu::runtime::load(&onednn()).unwrap();
    let loaded = CpuBackend::load(&folder, library, options);
    (Box::new(loaded.unwrap()), folder)
}

fn onnx(path: &Path) -> (Box<dyn Backend>, ModelFolder) {
    onnx_in(Precision::F32, path)
}

fn onnx_in(precision: Precision, path: &Path) -> (Box<dyn Backend>, ModelFolder) {
    let folder = ModelFolder::open(path).unwrap();
    let options = embedgate_onnx::Options {
        file: Some(converted_in(precision, path)),
        precision,
        library: Candidates {
            named: Some(root().join(".embedgate/lib")),
            folders: Vec::new(),
        },
        pooling: folder.pooling.unwrap(),
        max_sequence_tokens: folder.max_sequence_tokens,
        special_token_ids: tokenizer(&folder).special_token_ids(),
        threads: 2,
        shared_in: None,
    };
    (
        Box::new(OnnxBackend::load(&folder, options).unwrap()),
        folder,
    )
}

/// A file of reference vectors.
pub(crate) struct Reference(Vec<u8>);

impl Reference {
    pub(crate) fn open(name: &str) -> Self {
        Self(std::fs::read(fixtures().join(name)).unwrap())
    }

    fn bytes<const N: usize>(&self, name: &str) -> Vec<[u8; N]> {
        let tensors = SafeTensors::deserialize(&self.0).unwrap();
        tensors
            .tensor(name)
            .unwrap()
            .data()
            .as_chunks::<N>()
            .0
            .to_vec()
    }

    pub(crate) fn floats(&self, name: &str) -> Vec<f32> {
        self.bytes(name)
            .into_iter()
            .map(f32::from_le_bytes)
            .collect()
    }

    pub(crate) fn numbers(&self, name: &str) -> Vec<usize> {
        self.bytes(name)
            .into_iter()
            .map(|b| usize::try_from(i64::from_le_bytes(b)).unwrap())
            .collect()
    }

    pub(crate) fn rows(&self, name: &str, width: usize) -> Vec<Vec<f32>> {
        self.floats(name)
            .chunks(width)
            .map(<[f32]>::to_vec)
            .collect()
    }
}

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
fn run(
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

fn dense_rows(batches: &[EmbeddingBatch]) -> Vec<Vec<f32>> {
    let matrices = batches.iter().map(|batch| batch.dense.as_ref().unwrap());
    matrices
        .flat_map(|matrix| (0..matrix.rows()).map(|i| normalized(matrix.row(i))))
        .collect()
}

fn assert_like(expected: &[Vec<f32>], got: &[Vec<f32>], how: &str) {
    assert_eq!(expected.len(), got.len(), "{how}");
    for (i, (expected, got)) in expected.iter().zip(got).enumerate() {
        let (cosine, far) = (cosine(expected, got), max_difference(expected, got));
        assert!(
            cosine >= COSINE && far <= DIFFERENCE,
            "text {i} {how}: cosine {cosine}, difference {far}"
        );
    }
}

fn minilm_equals_sentence_transformers(mut backend: Box<dyn Backend>, folder: &ModelFolder) {
    let (texts, tokenizer) = (texts(), tokenizer(folder));
    assert!(texts.len() >= 200);
    assert_eq!(folder.pooling, Some(Pooling::Mean));
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
    assert_eq!(folder.pooling, Some(Pooling::Cls));
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
        .flat_map(|batch| batch.multi_vector.as_ref().unwrap())
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
        .flat_map(|batch| batch.sparse.as_ref().unwrap())
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
            far <= DIFFERENCE,
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
        let gateway = start("AVX512_CORE_VNNI");
        gateway.wait_for_log("\"message\":\"ready\"");
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

#[test]
fn the_same_weights_in_every_file_format_give_the_same_vectors() {
    // Re-written from the one checkpoint: safetensors in one file, and in two shards with an index.
    let source = embedgate_weights::Weights::open(&tiny_bge_m3()).unwrap();
    let (mut expected, folder) = candle(&tiny_bge_m3());
    let tokenizer = tokenizer(&folder);
    let expected = run(
        expected.as_mut(),
        &tokenizer,
        &texts()[..20],
        20,
        Outputs::BGE_M3,
    );
    for sharded in [false, true] {
        let copy = tempfile::tempdir().unwrap();
        copy_without_weights(&tiny_bge_m3(), copy.path());
        write_safetensors(&source, &folder, copy.path(), sharded);
        let (mut backend, _) = candle(copy.path());
        let got = run(
            backend.as_mut(),
            &tokenizer,
            &texts()[..20],
            20,
            Outputs::BGE_M3,
        );
        assert!(got == expected, "sharded: {sharded}");
    }
}

fn copy_without_weights(from: &Path, to: &Path) {
    for entry in from.read_dir().unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap();
        if path.is_dir() {
            std::fs::create_dir(to.join(name)).unwrap();
            copy_without_weights(&path, &to.join(name));
        } else if name != "pytorch_model.bin" {
            std::fs::copy(&path, to.join(name)).unwrap();
        }
    }
}

/// Writes the encoder's tensors under the prefix `roberta.`, as a checkpoint of a model with a task's head has them.
fn write_safetensors(
    source: &embedgate_weights::Weights,
    folder: &ModelFolder,
    to: &Path,
    sharded: bool,
) {
    let e = &folder.encoder;
    let (d, f) = (e.hidden_size, e.intermediate_size);
    let mut shapes: Vec<(String, Vec<usize>)> = vec![
        (
            "embeddings.word_embeddings.weight".into(),
            vec![e.vocabulary_size, d],
        ),
        (
            "embeddings.position_embeddings.weight".into(),
            vec![e.max_position_embeddings, d],
        ),
        (
            "embeddings.token_type_embeddings.weight".into(),
            vec![e.type_vocabulary_size, d],
        ),
        ("embeddings.LayerNorm.weight".into(), vec![d]),
        ("embeddings.LayerNorm.bias".into(), vec![d]),
    ];
    for i in 0..e.n_layers {
        let mut linear = |name: &str, outputs: usize, inputs: usize| {
            shapes.push((
                format!("encoder.layer.{i}.{name}.weight"),
                vec![outputs, inputs],
            ));
            shapes.push((format!("encoder.layer.{i}.{name}.bias"), vec![outputs]));
        };
        for name in [
            "attention.self.query",
            "attention.self.key",
            "attention.self.value",
            "attention.output.dense",
        ] {
            linear(name, d, d);
        }
        linear("intermediate.dense", f, d);
        linear("output.dense", d, f);
        for name in ["attention.output.LayerNorm", "output.LayerNorm"] {
            shapes.push((format!("encoder.layer.{i}.{name}.weight"), vec![d]));
            shapes.push((format!("encoder.layer.{i}.{name}.bias"), vec![d]));
        }
    }
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let values = source.values(&name, &shape).unwrap();
            let bytes = values.iter().flat_map(|x| x.to_le_bytes()).collect();
            (format!("roberta.{name}"), shape, bytes)
        })
        .collect();
    let serialize = |tensors: &[(String, Vec<usize>, Vec<u8>)], name: &str| {
        let views = tensors.iter().map(|(name, shape, bytes)| {
            (
                name,
                safetensors::tensor::TensorView::new(safetensors::Dtype::F32, shape.clone(), bytes)
                    .unwrap(),
            )
        });
        safetensors::serialize_to_file(views, None, &to.join(name)).unwrap();
    };
    if !sharded {
        serialize(&tensors, "model.safetensors");
        return;
    }
    let (first, second) = tensors.split_at(tensors.len() / 2);
    let mut map = serde_json::Map::new();
    for (part, name) in [
        (first, "model-00001-of-00002.safetensors"),
        (second, "model-00002-of-00002.safetensors"),
    ] {
        serialize(part, name);
        map.extend(
            part.iter()
                .map(|(tensor, ..)| (tensor.clone(), name.into())),
        );
    }
    let index = serde_json::json!({"metadata": {"total_size": 0}, "weight_map": map});
    std::fs::write(to.join("model.safetensors.index.json"), index.to_string()).unwrap();
}
