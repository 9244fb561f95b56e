//! Lines of JSON, one a text.

use std::io::Write;

use embedgate_core::{Head, HeadValue};
use embedgate_request::Embedding;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::Value;

use super::Embedded;

/// Writes a line for each row.
pub(super) fn lines(out: &mut dyn Write, rows: Vec<Embedded>) -> anyhow::Result<()> {
    for (id, embedding) in rows {
        let line = Line {
            id: id.as_ref(),
            embedding: &embedding,
        };
        serde_json::to_writer(&mut *out, &line)?;
        out.write_all(b"\n")?;
    }
    Ok(())
}

/// The results of one text; each number with the digits that an f32 has.
struct Line<'a> {
    id: Option<&'a Value>,
    embedding: &'a Embedding,
}

impl Serialize for Line<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut line = serializer.serialize_map(None)?;
        if let Some(id) = self.id {
            line.serialize_entry("id", id)?;
        }
        let (n_tokens, full) = (self.embedding.n_tokens, self.embedding.n_tokens_full);
        line.serialize_entry("tokens", &n_tokens)?;
        for (head, names) in Head::named() {
            match self.embedding.results.get(head) {
                None => {}
                Some(HeadValue::Vector(vector)) => line.serialize_entry(names.member, vector)?,
                Some(HeadValue::Weights(sparse)) => {
                    let (indices, values) = (&sparse.indices, &sparse.values);
                    line.serialize_entry(names.member, &Weights { indices, values })?;
                }
                Some(HeadValue::Rows(matrix)) => {
                    let rows: Vec<_> = (0..matrix.rows()).map(|i| matrix.row(i)).collect();
                    line.serialize_entry(names.member, &rows)?;
                }
                Some(HeadValue::Score(score)) => line.serialize_entry(names.member, score)?,
            }
        }
        if full > n_tokens {
            line.serialize_entry("truncated_from", &full)?;
        }
        line.end()
    }
}

/// Lexical weights as they are written.
#[derive(Serialize)]
struct Weights<'a> {
    indices: &'a [u32],
    values: &'a [f32],
}
