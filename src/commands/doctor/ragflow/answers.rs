//! The readers of answers: what `RAGFlow` finds in each, or the problem that it has.

use serde_json::Value;

/// Texts of one request of an ingest.
pub(super) const N_TEXTS: usize = 16;

/// Reads vectors as numbers.
pub(super) fn floats(answer: &Value) -> Result<String, String> {
    let width = |item: &Value| item["embedding"].as_array().map(Vec::len);
    of_openai(answer, width)
}

/// Reads vectors in base64.
pub(super) fn base64(answer: &Value) -> Result<String, String> {
    let width = |item: &Value| {
        let text = item["embedding"].as_str()?;
        let bytes = base64_simd::STANDARD.decode_to_vec(text).ok()?;
        bytes.len().is_multiple_of(4).then_some(bytes.len() / 4)
    };
    of_openai(answer, width)
}

/// Vectors are sorted by their index, and the tokens are billed.
fn of_openai(answer: &Value, width: impl Fn(&Value) -> Option<usize>) -> Result<String, String> {
    let items = answer["data"].as_array().ok_or("it has no list \"data\"")?;
    let widths: Option<Vec<usize>> = items.iter().map(width).collect();
    let widths = widths.ok_or("an item of \"data\" has no embedding of the form asked for")?;
    let indices: Vec<Option<u64>> = items.iter().map(|item| item["index"].as_u64()).collect();
    if !indices.iter().copied().eq((0..N_TEXTS as u64).map(Some)) {
        return Err(format!(
            "{N_TEXTS} texts were sent, the items have the indices {indices:?}"
        ));
    }
    Ok(format!("{} dimensions, {}", same(&widths)?, usage(answer)))
}

/// The tokens that an answer says. Releases of RAGFlow that are newer count tokens themselves where it says none.
fn usage(answer: &Value) -> String {
    match answer["usage"]["total_tokens"].as_u64() {
        Some(n) if n > 0 => format!("{n} tokens"),
        _ => "and no usage.total_tokens, which older releases of RAGFlow need".into(),
    }
}

/// Reads Ollama's answer.
pub(super) fn of_ollama(answer: &Value) -> Result<String, String> {
    let tokens = answer["prompt_eval_count"].as_u64().unwrap_or(0);
    if tokens == 0 {
        return Err("prompt_eval_count is missing or 0".into());
    }
    let found = bare_vectors(&answer["embeddings"])?;
    Ok(format!("{found}, {tokens} tokens"))
}

/// Reads a list of vectors.
pub(super) fn bare_vectors(answer: &Value) -> Result<String, String> {
    let rows = answer.as_array().ok_or("it is no list of vectors")?;
    let widths: Option<Vec<usize>> = rows.iter().map(|row| Some(row.as_array()?.len())).collect();
    let widths = widths.ok_or("it is no list of vectors")?;
    if widths.len() != N_TEXTS {
        let n = widths.len();
        return Err(format!("{N_TEXTS} texts were sent, {n} vectors came"));
    }
    Ok(format!("{} dimensions", same(&widths)?))
}

fn same(widths: &[usize]) -> Result<usize, String> {
    match widths {
        [first, rest @ ..] if *first > 0 && rest.iter().all(|width| width == first) => Ok(*first),
        _ => Err(format!("the vectors have {widths:?} dimensions")),
    }
}

/// Reads ranks under `results`.
pub(super) fn ranks(answer: &Value) -> Result<String, String> {
    let lines = answer["results"].as_array();
    let lines = lines.ok_or("it has no list \"results\"")?;
    let found = ranked(lines, "relevance_score")?;
    Ok(format!("{found}, {}", usage(answer)))
}

/// Reads a list of ranks.
pub(super) fn bare_ranks(answer: &Value) -> Result<String, String> {
    ranked(answer.as_array().ok_or("it is no list of scores")?, "score")
}

fn ranked(lines: &[Value], score: &str) -> Result<String, String> {
    let mut indices: Vec<Option<u64>> = lines.iter().map(|line| line["index"].as_u64()).collect();
    indices.sort_unstable();
    if indices != [Some(0), Some(1)] {
        return Err(format!(
            "2 documents were sent, the results have the indices {indices:?}"
        ));
    }
    let scores: Option<Vec<f64>> = lines.iter().map(|line| line[score].as_f64()).collect();
    match scores {
        Some(scores) => Ok(format!("scores {scores:.3?}")),
        None => Err(format!("a result has no {score}")),
    }
}
