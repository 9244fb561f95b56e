//! The families of models: each makes the description of an encoder of its `config.json`.

mod albert;
mod bert;
mod deberta;
mod distilbert;
mod gemma3;
mod gte;
mod modernbert;
mod mpnet;
mod nomic;
mod qwen;
mod rope;
mod t5;
mod xlm_roberta_flash;

use super::{EncoderConfig, fields::Fields};

type Describe = fn(&Fields<'_>, &str) -> Result<EncoderConfig, String>;

/// The families, by the `model_type` of their files.
const FAMILIES: &[(&[&str], Describe)] = &[
    (
        &[
            "bert",
            "roberta",
            "xlm-roberta",
            "camembert",
            "ernie",
            "electra",
        ],
        bert::describe,
    ),
    (&["mpnet"], mpnet::describe),
    (&["distilbert"], distilbert::describe),
    (&["qwen3", "qwen2", "mistral", "eurobert"], qwen::describe),
    (&["nomic_bert"], nomic::describe),
    (&["new", "gte"], gte::describe),
    (&["modernbert"], modernbert::describe),
    (&["gemma3_text"], gemma3::describe),
    (&["albert"], albert::describe),
    (&["deberta-v2"], deberta::describe),
    (&["t5"], t5::describe),
    (
        &[xlm_roberta_flash::MODEL_TYPE],
        xlm_roberta_flash::describe,
    ),
];

/// Describes the encoder of a file.
pub(super) fn describe(fields: &Fields<'_>) -> Result<EncoderConfig, String> {
    let mut model_type = fields.word_or("model_type", "")?;
    if model_type == "xlm-roberta" && xlm_roberta_flash::is_hidden_in(fields) {
        model_type = xlm_roberta_flash::MODEL_TYPE;
    }
    let family = FAMILIES
        .iter()
        .find(|(names, _)| names.contains(&model_type));
    let Some((_, describe)) = family else {
        let names: Vec<&str> = FAMILIES
            .iter()
            .flat_map(|(names, _)| *names)
            .copied()
            .collect();
        let said = match model_type {
            "" => "missing".to_owned(),
            other => format!("\"{other}\""),
        };
        return Err(format!(
            "model_type is {said}, supported are {}",
            names.join(", ")
        ));
    };
    if fields.get("quantization_config").is_some() {
        return Err(
            "quantization_config is set, supported are weights in f32, f16 and bf16: save the model without it, and set \
             backend.precision"
                .into(),
        );
    }
    check_code(fields, model_type)?;
    let config = describe(fields, model_type)?;
    check(&config)?;
    Ok(config)
}

/// The classes of models' own code that families are descriptions of.
const CODE: [&str; 5] = [
    "NewModel",
    "GteModel",
    "NomicBertModel",
    "JinaBertModel",
    "EuroBertModel",
];

/// Refuses a model with Python code of its own that is not described: it may compute anything.
fn check_code(fields: &Fields<'_>, model_type: &str) -> Result<(), String> {
    let code = fields.get("auto_map").and_then(|map| map.get("AutoModel"));
    let Some(code) = code.and_then(serde_json::Value::as_str) else {
        return Ok(());
    };
    let class = code.rsplit('.').next().unwrap_or_default();
    if CODE.contains(&class) || model_type == xlm_roberta_flash::MODEL_TYPE {
        return Ok(());
    }
    Err(format!(
        "auto_map names \"{code}\", Python code of the model's own (trust_remote_code), which is not run; of type {model_type} what \
         transformers computes is known"
    ))
}

/// Checks what every encoder has to fulfil.
fn check(config: &EncoderConfig) -> Result<(), String> {
    let attention = &config.attention;
    if !attention.n_heads.is_multiple_of(attention.n_key_heads) {
        return Err(format!(
            "num_attention_heads {} is not a multiple of num_key_value_heads {}",
            attention.n_heads, attention.n_key_heads
        ));
    }
    if config.max_sequence_tokens == 0 {
        let rows = config.embeddings.positions.as_ref();
        return Err(format!(
            "max_position_embeddings is {}, which leaves no position above pad_token_id {}",
            rows.map_or(0, |positions| positions.table.rows),
            config.pad_token_id
        ));
    }
    Ok(())
}

/// Numbers of a head, where heads share a width among themselves.
fn head_size(width: usize, n_heads: usize) -> Result<usize, String> {
    match width.is_multiple_of(n_heads) {
        true => Ok(width / n_heads),
        false => Err(format!(
            "hidden_size {width} is not a multiple of num_attention_heads {n_heads}"
        )),
    }
}

#[cfg(test)]
mod tests;
