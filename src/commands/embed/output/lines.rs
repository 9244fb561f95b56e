//! Lines of JSON, one a text.

use std::io::Write;

use serde::Serialize;
use serde_json::Value;

use super::Embedded;

/// Writes a line for each row.
pub(super) fn lines(out: &mut dyn Write, rows: Vec<Embedded>) -> anyhow::Result<()> {
    for (id, embedding) in rows {
        let (n_tokens, full) = (embedding.n_tokens, embedding.n_tokens_full);
        let sparse = embedding.sparse.as_ref().map(|sparse| Sparse {
            indices: &sparse.indices,
            values: &sparse.values,
        });
        let vectors = embedding.multi_vector.as_ref();
        let rows = vectors.map(|all| (0..all.rows()).map(|i| all.row(i)).collect());
        let line = Line {
            id,
            embedding: embedding.dense_numbers(),
            sparse_embedding: sparse,
            colbert_embedding: rows,
            tokens: n_tokens,
            truncated_from: (full > n_tokens).then_some(full),
        };
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// One text's results; each number with the digits that an f32 has.
#[derive(Serialize)]
struct Line<'a> {
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<Value>,
    tokens: usize,
    #[serde(skip_serializing_if = "Option::is_none")]
    embedding: Option<&'a [f32]>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sparse_embedding: Option<Sparse<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    colbert_embedding: Option<Vec<&'a [f32]>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    truncated_from: Option<usize>,
}

#[derive(Serialize)]
struct Sparse<'a> {
    indices: &'a [u32],
    values: &'a [f32],
}
