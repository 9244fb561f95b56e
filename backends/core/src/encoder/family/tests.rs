use serde_json::{Value, json};

use super::*;
use crate::encoder::{Activation, Gate, Norms};

fn read(file: &Value) -> Result<EncoderConfig, String> {
    EncoderConfig::from_json(&file.to_string())
}

fn xlm_roberta() -> Value {
    json!({
        "model_type": "xlm-roberta", "vocab_size": 100, "hidden_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 4, "intermediate_size": 128, "hidden_act": "gelu",
        "max_position_embeddings": 514, "type_vocab_size": 1, "layer_norm_eps": 1e-5, "pad_token_id": 1,
    })
}

#[test]
fn bert_and_its_like_differ_in_positions_alone() {
    let roberta = read(&xlm_roberta()).unwrap();
    assert_eq!(roberta.max_sequence_tokens, 512);
    let positions: Vec<u32> = roberta.position_ids(&[0, 7, 1, 8, 2]).collect();
    assert_eq!(positions, [2, 3, 1, 4, 5]);
    assert_eq!(roberta.bert_like().unwrap().layers.len(), 2);
    let mut file = xlm_roberta();
    file["model_type"] = "bert".into();
    let bert = read(&file).unwrap();
    assert_eq!(bert.position_ids(&[1, 7, 1]).collect::<Vec<_>>(), [0, 1, 2]);
    assert_eq!(bert.layers, roberta.layers);
}

#[test]
fn jinas_second_embedders_are_told_from_bert() {
    let mut file = xlm_roberta();
    file["model_type"] = "bert".into();
    file["position_embedding_type"] = "alibi".into();
    assert!(read(&file).unwrap_err().contains("feed_forward_type"));
    file["feed_forward_type"] = "geglu".into();
    let jina = read(&file).unwrap();
    assert_eq!(jina.feed_forward.gate, Some(Gate::First));
    assert_eq!(
        jina.bert_like().unwrap_err(),
        "a bias of attention by distance"
    );
}

#[test]
fn what_is_not_supported_is_named() {
    let cases = [
        (
            "model_type",
            json!("gpt2"),
            "model_type is \"gpt2\", supported are bert, roberta",
        ),
        ("model_type", json!(null), "model_type is missing"),
        ("hidden_size", json!(63), "not a multiple"),
        ("hidden_size", json!(0), "hidden_size is 0"),
        ("hidden_size", json!("64"), "hidden_size is \"64\""),
        ("vocab_size", json!(null), "vocab_size is missing"),
        (
            "vocab_size",
            json!(99_999_999_999_u64),
            "vocab_size is 99999999999",
        ),
        ("hidden_act", json!("swiglu"), "hidden_act is \"swiglu\""),
        (
            "position_embedding_type",
            json!("relative_key"),
            "relative_key",
        ),
        ("max_position_embeddings", json!(2), "leaves no position"),
        ("layer_norm_eps", json!(-1.0), "layer_norm_eps is -1"),
        ("is_decoder", json!(true), "is_decoder is true"),
        ("pruned_heads", json!({"0": [1]}), "pruned_heads is set"),
        (
            "quantization_config",
            json!({"bits": 4}),
            "quantization_config is set",
        ),
    ];
    for (field, value, expected) in cases {
        let mut file = xlm_roberta();
        file[field] = value;
        let error = read(&file).unwrap_err();
        assert!(error.contains(expected), "{field}: {error}");
    }
}

#[test]
fn qwen_has_what_its_file_says() {
    let file = json!({
        "model_type": "qwen3", "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "num_key_value_heads": 2, "head_dim": 16, "intermediate_size": 48, "hidden_act": "silu",
        "max_position_embeddings": 64, "rms_norm_eps": 1e-6, "rope_parameters": {"rope_theta": 1e6, "rope_type": "default"},
    });
    let config = read(&file).unwrap();
    assert_eq!(
        (config.attention.qkv_width(), config.attention.query_width()),
        (128, 64)
    );
    assert_eq!(config.feed_forward.activation, Activation::Silu);
    let layer = &config.layers[1];
    assert_eq!((layer.reach.before, layer.reach.after), (None, Some(0)));
    assert!(matches!(
        &layer.attention_norms,
        Norms::Before { after: None, .. }
    ));
    let frequencies = &layer.rotary.as_ref().unwrap().frequencies;
    assert!((frequencies[1] - 1e6_f32.powf(-2.0 / 16.0)).abs() < 1e-7);
    assert_eq!(config.bert_like().unwrap_err(), "rotary positions");
}

#[test]
fn code_of_the_models_own_is_refused_but_where_the_family_is_its_description() {
    let mut file = xlm_roberta();
    for (code, is_known) in [
        // Of a layout that is known by the class of its configuration.
        (
            "jinaai/xlm-roberta-flash-implementation--modeling_lora.XLMRobertaLoRA",
            false,
        ),
        ("modeling_qwen.Qwen2Model", false),
        (
            "jinaai/jina-bert-implementation--modeling_bert.JinaBertModel",
            true,
        ),
        (
            "jinaai/jina-bert-v2-qk-post-norm--modeling_bert.JinaBertModel",
            true,
        ),
        ("Alibaba-NLP/new-impl--modeling.NewModel", true),
    ] {
        file["auto_map"] = json!({"AutoConfig": "configuration.Config", "AutoModel": code});
        let read = read(&file);
        assert_eq!(read.is_ok(), is_known, "{code}");
        assert!(is_known || read.unwrap_err().contains("trust_remote_code"));
    }
}

#[test]
fn windows_and_rotations_that_make_no_sense_are_refused() {
    let qwen = json!({
        "model_type": "qwen3", "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 4,
        "head_dim": 8, "intermediate_size": 48, "use_sliding_window": true, "sliding_window": 4,
    });
    for (field, value, expected) in [
        (
            "layer_types",
            json!(["full_attention"]),
            "layer_types has 1 entries, expected 2",
        ),
        (
            "layer_types",
            json!(["full_attention", "mamba"]),
            "layer_types has \"mamba\"",
        ),
        ("head_dim", json!(7), "expected an even number"),
        ("rope_theta", json!(0), "rope_theta is 0"),
        ("rope_scaling", json!({"type": "linear"}), "no factor"),
        (
            "num_hidden_layers",
            json!(5000),
            "num_hidden_layers is 5000",
        ),
    ] {
        let mut file = qwen.clone();
        file[field] = value;
        let error = read(&file).unwrap_err();
        assert!(error.contains(expected), "{field}: {error}");
    }
    let mut both = qwen.clone();
    both["rope_scaling"] = json!({"type": "linear", "factor": 2.0});
    both["rope_parameters"] = json!({"rope_theta": 1e6});
    assert!(read(&both).unwrap_err().contains("both set"));
    // Null is no window, and nothing written is the usual one.
    let before = |file: &Value| read(file).unwrap().layers[1].reach.before;
    let mut windows = qwen;
    windows["max_window_layers"] = 1.into();
    assert_eq!(before(&windows), Some(3));
    windows["sliding_window"] = Value::Null;
    assert_eq!(before(&windows), None);
    windows.as_object_mut().unwrap().remove("sliding_window");
    assert_eq!(before(&windows), Some(4095));
    // Where tokens see both sides, so do windows.
    windows["is_causal"] = false.into();
    windows["sliding_window"] = 4.into();
    let reach = read(&windows).unwrap().layers[1].reach;
    assert_eq!((reach.before, reach.after), (Some(4), Some(4)));
}

#[test]
fn a_scaling_of_positions_that_is_not_known_is_refused() {
    let mut file = json!({
        "model_type": "qwen2", "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 1, "num_attention_heads": 4,
        "intermediate_size": 48, "rope_scaling": {"type": "yarn", "factor": 4.0},
    });
    assert!(read(&file).unwrap_err().contains("scaled by \"yarn\""));
    file["rope_scaling"] = json!({"rope_type": "linear", "factor": 2.0});
    let config = read(&file).unwrap();
    assert_eq!(
        config.layers[0].rotary.as_ref().unwrap().frequencies[0],
        0.5
    );
}

#[test]
fn windows_are_where_the_files_say() {
    let modern = json!({
        "model_type": "modernbert", "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 4, "num_attention_heads": 4,
        "intermediate_size": 48, "local_attention": 8,
    });
    let of = |file: &Value| -> Vec<Option<usize>> {
        let layers = read(file).unwrap().layers;
        layers.iter().map(|layer| layer.reach.before).collect()
    };
    assert_eq!(of(&modern), [None, Some(4), Some(4), None]);
    let mut gemma = json!({
        "model_type": "gemma3_text", "vocab_size": 100, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "intermediate_size": 48, "sliding_window": 8, "use_bidirectional_attention": true,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    });
    assert_eq!(of(&gemma), [Some(4), None, Some(4)]);
    gemma["use_bidirectional_attention"] = false.into();
    assert_eq!(of(&gemma), [Some(7), None, Some(7)]);
}

#[test]
fn jinas_third_embedders_are_told_from_xlm_roberta() {
    let mut file = xlm_roberta();
    file["auto_map"] = json!({
        "AutoConfig": "jinaai/xlm-roberta-flash-implementation--configuration_xlm_roberta.XLMRobertaFlashConfig",
        "AutoModel": "jinaai/xlm-roberta-flash-implementation--modeling_lora.XLMRobertaLoRA",
    });
    assert!(
        read(&file)
            .unwrap_err()
            .contains("position_embedding_type is \"missing\"")
    );
    file["position_embedding_type"] = "absolute".into();
    let reranker = read(&file).unwrap();
    assert_eq!(reranker.max_sequence_tokens, 512);
    assert!(reranker.layers[0].rotary.is_none() && reranker.adapters.is_none());
    file["position_embedding_type"] = "rotary".into();
    file["lora_adaptations"] = json!(["a", "b"]);
    file["lora_alpha"] = 2.into();
    assert!(read(&file).unwrap().adapters.is_none());
    file["load_trained_adapters"] = true.into();
    let mut embedder = read(&file).unwrap();
    assert_eq!(embedder.max_sequence_tokens, 514);
    assert!(embedder.layers[0].rotary.is_some());
    let adapters = embedder.adapters.as_mut().unwrap();
    assert_eq!((adapters.scale, adapters.task()), (0.5, None));
    assert_eq!(adapters.apply("c"), Err("a, b".to_owned()));
    adapters.apply("b").unwrap();
    assert_eq!(adapters.task(), Some("b"));
    file["auto_map"]["AutoModel"] = "modeling_xlm_roberta.XLMRobertaOther".into();
    assert!(read(&file).unwrap_err().contains("trust_remote_code"));
}
