//! Finds out from names and shapes which tensor of a model is what.

pub(crate) mod inputs;

use embedgate_core::{EncoderConfig, Head, ModelFolder, PerHead, encoder::Attention};

use self::inputs::{Input, Role, roles};

/// An input or output of a model.
#[derive(Clone, Debug)]
pub(crate) struct Port {
    pub(crate) name: String,
    /// Dimensions, with -1 where they vary.
    pub(crate) shape: Vec<i64>,
    pub(crate) element: Element,
}

/// Number formats of tensors, as far as they are told apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Element {
    F32,
    F16,
    I64,
    I32,
    Other,
}

/// The tensors of a model, by what they mean.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Wiring {
    /// In the order of the model's inputs.
    pub(crate) inputs: Vec<Input>,
    /// The tensor of each head that the model has.
    pub(crate) heads: PerHead<HeadTensor>,
}

/// The tensor of a head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum HeadTensor {
    /// A row a token, shape `(batch, length, width)`; of weights also `(batch, length)`, of bge-m3's token vectors also without the first
    /// token.
    Tokens(String),
    /// A row a sequence, shape `(batch, width)`.
    Pooled(String),
}

impl HeadTensor {
    /// The name.
    pub(crate) fn name(&self) -> &str {
        match self {
            Self::Tokens(name) | Self::Pooled(name) => name,
        }
    }
}

/// Names of pooled vectors in exports that also have bge-m3's heads, whose token vectors are not the dense embedding's.
const DENSE: [&str; 4] = ["dense_vecs", "dense", "dense_embeddings", "dense_embedding"];
/// Names of token vectors, the likeliest first: transformers, sentence-transformers and optimum exports.
const TOKENS: [&str; 4] = [
    "last_hidden_state",
    "token_embeddings",
    "hidden_states",
    "encoder_output",
];
/// Names of pooled vectors: sentence-transformers, others.
const POOLED: [&str; 4] = [
    "sentence_embedding",
    "sentence_embeddings",
    "embeddings",
    "text_embeds",
];
const SPARSE: [&str; 3] = ["sparse_weights", "sparse_vecs", "sparse"];
const MULTI_VECTOR: [&str; 5] = [
    "colbert_vecs",
    "colbert",
    "colbert_vectors",
    "colbert_embeddings",
    "multi_vector",
];
/// The heads whose tensors have a row a token: their names, and the number of their dimensions.
const BY_TOKEN: [(Head, &[&str], &[usize]); 3] = [
    (Head::Sparse, &SPARSE, &[2, 3]),
    (Head::MultiVector, &MULTI_VECTOR, &[3]),
    (Head::TokenVectors, &TOKENS, &[3]),
];
/// Transformers' pooler is trained for another task: its output is no embedding.
const POOLER: &str = "pooler_output";
/// The name of a classifier's output, in transformers and optimum exports.
const LOGITS: &str = "logits";

impl Wiring {
    /// Reads it off the inputs and outputs of an embedder.
    ///
    /// # Errors
    /// A sentence that names the tensor that is not understood, and what is expected.
    pub(crate) fn of_embedder(
        inputs: &[Port],
        outputs: &[Port],
        encoder: &EncoderConfig,
    ) -> Result<Self, String> {
        let inputs = roles(inputs, attention(encoder))?;
        let named = |names: &[&str], rank: &[usize]| {
            let port = |name: &&str| {
                outputs
                    .iter()
                    .find(|port| port.name == *name && fits(port, rank))
            };
            names.iter().find_map(port).map(|port| port.name.clone())
        };
        let dense = named(&DENSE, &[2])
            .map(HeadTensor::Pooled)
            .or_else(|| named(&TOKENS, &[3]).map(HeadTensor::Tokens))
            .or_else(|| named(&POOLED, &[2]).map(HeadTensor::Pooled))
            .or_else(|| only_output(outputs));
        let dense = dense.ok_or_else(|| {
            let (tokens, pooled) = (TOKENS.join(", "), [&DENSE[..], &POOLED].concat().join(", "));
            not_understood(&format!("{tokens} or {pooled}"), outputs)
        })?;
        let mut heads = PerHead::default();
        heads.set(Head::Dense, dense);
        for (head, names, ranks) in BY_TOKEN {
            if let Some(name) = named(names, ranks) {
                heads.set(head, HeadTensor::Tokens(name));
            }
        }
        Ok(Self { inputs, heads })
    }

    /// Reads it off the inputs and outputs of a cross-encoder.
    ///
    /// # Errors
    /// As [`Wiring::of_embedder`]; also when there is more than one segment and no input that takes them: scores would be
    /// wrong without a sign of it.
    pub(crate) fn of_cross_encoder(
        inputs: &[Port],
        outputs: &[Port],
        encoder: &EncoderConfig,
    ) -> Result<Self, String> {
        let inputs = roles(inputs, attention(encoder))?;
        let n_segments = encoder.n_segments();
        if n_segments > 1 && !inputs.iter().any(|input| input.role == Role::Segments) {
            return Err(format!(
                "the model has no input \"token_type_ids\", its config.json has {n_segments} segments"
            ));
        }
        // One number a sequence, or a shape that is left open.
        let is_score = |port: &&Port| {
            port.name == LOGITS && fits(port, &[2]) && matches!(port.shape[1], 1 | -1)
        };
        let score = outputs.iter().find(is_score);
        let score = score.ok_or_else(|| not_understood("logits [-1, 1]", outputs))?;
        let score = HeadTensor::Pooled(score.name.clone());
        Ok(Self {
            inputs,
            heads: std::iter::once((Head::Score, score)).collect(),
        })
    }
}

impl Wiring {
    /// Checks that the model applies an adapter where one is chosen, and where it has adapters.
    ///
    /// # Errors
    /// A sentence that names the key or the input that is missing.
    pub(crate) fn check_adapter(&self, folder: &ModelFolder) -> Result<(), String> {
        let is_task = |input: &Input| matches!(input.role, Role::Task { .. });
        let tasks = folder
            .encoder
            .adapters
            .as_ref()
            .map(|adapters| adapters.tasks.join(", "));
        match (self.inputs.iter().any(is_task), folder.adapter()) {
            (true, None) => Err(format!(
                "the model applies the adapter of a task always: choose one with the model's key adapter, of {}",
                tasks
                    .as_deref()
                    .unwrap_or("those that its config.json should name")
            )),
            (false, Some(task)) => Err(format!(
                "the model has no input \"task_id\", and the model's key adapter is \"{task}\""
            )),
            _ => Ok(()),
        }
    }
}

/// The shape of attention; none where it is not described.
fn attention(encoder: &EncoderConfig) -> Option<&Attention> {
    encoder
        .not_described
        .is_none()
        .then_some(&encoder.attention)
}

fn not_understood(expected: &str, outputs: &[Port]) -> String {
    let have: Vec<_> = outputs
        .iter()
        .map(|port| format!("{} {:?}", port.name, port.shape))
        .collect();
    format!(
        "no output is understood: expected f32 or f16 {expected}, the model has {}",
        have.join(", ")
    )
}

fn fits(port: &Port, ranks: &[usize]) -> bool {
    matches!(port.element, Element::F32 | Element::F16) && ranks.contains(&port.shape.len())
}

/// A model with a single output (beside the pooler's) leaves no doubt what it is, whatever its name but a classifier's.
fn only_output(outputs: &[Port]) -> Option<HeadTensor> {
    let mut candidates = outputs.iter().filter(|port| port.name != POOLER);
    let (Some(port), None) = (candidates.next(), candidates.next()) else {
        return None;
    };
    match port.shape.len() {
        _ if port.name == LOGITS => None,
        3 if fits(port, &[3]) => Some(HeadTensor::Tokens(port.name.clone())),
        2 if fits(port, &[2]) => Some(HeadTensor::Pooled(port.name.clone())),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn port(name: &str, shape: &[i64], element: Element) -> Port {
        Port {
            name: name.into(),
            shape: shape.into(),
            element,
        }
    }

    /// An encoder of so many segments, with heads of 8 numbers.
    fn encoder(n_segments: usize) -> EncoderConfig {
        let text = format!(
            r#"{{"model_type": "bert", "vocab_size": 9, "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2,
            "intermediate_size": 4, "max_position_embeddings": 8, "type_vocab_size": {n_segments}}}"#
        );
        EncoderConfig::from_json(&text).unwrap()
    }

    fn ids() -> Vec<Port> {
        vec![
            port("input_ids", &[-1, -1], Element::I64),
            port("attention_mask", &[-1, -1], Element::I64),
        ]
    }

    fn dense_of(outputs: &[(&str, &[i64])]) -> Result<HeadTensor, String> {
        let outputs: Vec<_> = outputs
            .iter()
            .map(|(name, shape)| port(name, shape, Element::F32))
            .collect();
        Wiring::of_embedder(&ids(), &outputs, &encoder(1))
            .map(|mut wiring| wiring.heads.take(Head::Dense).unwrap())
    }

    #[test]
    fn outputs_of_the_known_exporters_are_found() {
        let tokens = |name: &str| Ok(HeadTensor::Tokens(name.into()));
        let pooled = |name: &str| Ok(HeadTensor::Pooled(name.into()));
        let hidden: &[i64] = &[-1, -1, 8];
        let flat: &[i64] = &[-1, 8];
        // transformers: the pooler's output is another thing than an embedding.
        let transformers: [(&str, &[i64]); 2] =
            [("pooler_output", flat), ("last_hidden_state", hidden)];
        assert_eq!(dense_of(&transformers), tokens("last_hidden_state"));
        let optimum: [(&str, &[i64]); 2] =
            [("token_embeddings", hidden), ("sentence_embedding", flat)];
        assert_eq!(dense_of(&optimum), tokens("token_embeddings"));
        let bge_m3: [(&str, &[i64]); 3] = [
            ("dense_vecs", flat),
            ("sparse_vecs", &[-1, -1, 1]),
            ("colbert_vecs", hidden),
        ];
        assert_eq!(dense_of(&bge_m3), pooled("dense_vecs"));
        assert_eq!(
            dense_of(&[("sentence_embedding", flat)]),
            pooled("sentence_embedding")
        );
        assert_eq!(dense_of(&[("some_output", hidden)]), tokens("some_output"));
        assert!(
            dense_of(&[("a", hidden), ("b", hidden)])
                .unwrap_err()
                .contains("a [-1, -1, 8]")
        );
        assert!(dense_of(&[("pooler_output", flat)]).is_err());
        assert!(dense_of(&[("logits", &[-1, 1])]).is_err());
    }

    #[test]
    fn unknown_inputs_and_number_formats_are_named() {
        let output = [port("last_hidden_state", &[-1, -1, 8], Element::F32)];
        let find = |inputs: &[Port]| Wiring::of_embedder(inputs, &output, &encoder(1));
        assert!(
            find(&[port("pixel_values", &[], Element::F32)])
                .unwrap_err()
                .contains("pixel_values")
        );
        assert!(
            find(&[port("input_ids", &[], Element::F32)])
                .unwrap_err()
                .contains("int64")
        );
        assert!(
            find(&[port("attention_mask", &[], Element::I64)])
                .unwrap_err()
                .contains("input_ids")
        );
        assert!(
            find(&[port("input_ids", &[], Element::I32)])
                .unwrap()
                .inputs[0]
                .element
                == Element::I32
        );
        let half = [port("last_hidden_state", &[-1, -1, 8], Element::Other)];
        assert!(
            Wiring::of_embedder(&ids(), &half, &encoder(1))
                .unwrap_err()
                .contains("f32")
        );
    }

    #[test]
    fn one_logit_a_sequence_is_a_score() {
        let score_of = |name: &str, shape: &[i64], element| {
            Wiring::of_cross_encoder(&ids(), &[port(name, shape, element)], &encoder(1))
                .map(|wiring| wiring.heads.into_iter().collect::<Vec<_>>())
        };
        for shape in [[-1, 1], [-1, -1]] {
            let score = score_of("logits", &shape, Element::F32);
            let logits = HeadTensor::Pooled("logits".into());
            assert_eq!(score, Ok(vec![(Head::Score, logits)]));
        }
        for (name, shape, element) in [
            ("logits", &[-1, 3][..], Element::F32),
            ("logits", &[-1, -1, 1], Element::F32),
            ("logits", &[-1, 1], Element::Other),
            ("last_hidden_state", &[-1, -1, 8], Element::F32),
        ] {
            let error = score_of(name, shape, element).unwrap_err();
            assert!(error.contains(&format!("the model has {name} {shape:?}")));
        }
    }

    #[test]
    fn a_cross_encoder_of_two_segments_must_take_them() {
        let logits = [port("logits", &[-1, 1], Element::F32)];
        let error = Wiring::of_cross_encoder(&ids(), &logits, &encoder(2)).unwrap_err();
        assert!(error.contains("token_type_ids"), "{error}");
        let mut inputs = ids();
        inputs.push(port("token_type_ids", &[-1, -1], Element::I64));
        assert!(Wiring::of_cross_encoder(&inputs, &logits, &encoder(2)).is_ok());
    }

    #[test]
    fn keys_and_values_of_tokens_before_are_inputs_without_any() {
        let output = [port("hidden_states", &[-1, -1, 8], Element::F16)];
        let find = |shape: &[i64], element| {
            let mut inputs = ids();
            inputs.push(port("past_key_values.0.key", shape, element));
            inputs.push(port("task_id", &[], Element::I64));
            let wiring = Wiring::of_embedder(&inputs, &output, &encoder(1));
            wiring.map(|wiring| [2, 3].map(|i| wiring.inputs[i].role))
        };
        let task = Role::Task { is_list: false };
        let past = |heads, size| Ok([Role::Past { heads, size }, task]);
        assert_eq!(find(&[-1, 4, -1, 32], Element::F16), past(4, 32));
        assert_eq!(find(&[-1, 4, -1, -1], Element::F32), past(4, 8));
        for (shape, element) in [
            (&[-1, 4, -1][..], Element::F32),
            (&[-1, 4, -1, 8], Element::I64),
        ] {
            let error = find(shape, element).unwrap_err();
            assert!(error.contains("past_key_values.0.key"), "{error}");
        }
    }

    #[test]
    fn an_adapter_that_is_chosen_is_one_that_the_model_takes() {
        use embedgate_core::Variant;
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR"));
        let path = path.join("../../tests/fixtures/families/jina3-adapters");
        let open = |adapter| {
            let variant = Variant {
                adapter,
                ..Variant::default()
            };
            ModelFolder::open_variant(&path, variant).unwrap()
        };
        let output = [port("last_hidden_state", &[-1, -1, 8], Element::F32)];
        let wiring = |inputs: &[Port]| Wiring::of_embedder(inputs, &output, &encoder(1)).unwrap();
        let mut with_task = ids();
        with_task.push(port("task_id", &[1], Element::I64));
        let (with_task, without) = (wiring(&with_task), wiring(&ids()));
        assert_eq!(with_task.check_adapter(&open(Some("second"))), Ok(()));
        assert_eq!(without.check_adapter(&open(None)), Ok(()));
        let error = with_task.check_adapter(&open(None)).unwrap_err();
        assert!(error.contains("of first, second"), "{error}");
        let error = without.check_adapter(&open(Some("second"))).unwrap_err();
        assert!(error.contains("task_id"), "{error}");
        let batch = [[0_u32, 5, 2].as_slice()].into_iter().collect();
        let padded =
            |folder: &ModelFolder| crate::padded::Padded::new(&batch, &[0], &folder.encoder);
        assert_eq!(padded(&open(Some("second"))).task, 1);
    }
}
