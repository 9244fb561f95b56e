//! The forms in which dialects write dense vectors.

use embedgate_request::{Dense, EmbedResponse, VectorText};
use serde::Deserialize;
use utoipa::ToSchema;

use super::json;

/// The form in which a dense vector is written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, ToSchema)]
#[serde(rename_all = "lowercase")]
#[schema(
    as = EmbeddingType,
    description = "binary and ubinary: whether numbers are above 0, eight in a signed or an unsigned byte, the first the highest bit."
)]
pub(super) enum DenseForm {
    /// A list of numbers.
    Float,
    /// Base64 of little-endian f32.
    Base64,
    /// A bit a number, whether it is above 0: eight in a signed byte, the first the highest.
    ///
    /// Source: Cohere's API reference, version 2, "Embed": the unsigned byte less 128.
    Binary,
    /// The bits of [`Self::Binary`] in unsigned bytes.
    Ubinary,
}

impl DenseForm {
    /// All of them, in the order in which answers hold them.
    pub(super) const ALL: [Self; 4] = [Self::Float, Self::Base64, Self::Binary, Self::Ubinary];

    /// Its name, in requests and answers.
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Float => "float",
            Self::Base64 => "base64",
            Self::Binary => "binary",
            Self::Ubinary => "ubinary",
        }
    }

    /// The form in which vectors are kept as text, where it is one.
    pub(super) fn text(self) -> Option<VectorText> {
        match self {
            Self::Float => Some(VectorText::Numbers),
            Self::Base64 => Some(VectorText::Base64),
            Self::Binary | Self::Ubinary => None,
        }
    }

    /// About how many bytes so many numbers take.
    pub(super) fn bytes(self, n: usize) -> usize {
        match self.text() {
            Some(text) => text.bytes(n),
            None => n.div_ceil(8) * "-128,".len(),
        }
    }

    /// Appends the vectors of an answer as a list.
    pub(super) fn write_all(self, out: &mut Vec<u8>, answer: &EmbedResponse) {
        json::list(out, &answer.embeddings, |out, embedding| {
            self.write(out, embedding.dense());
        });
    }

    /// Appends a vector, or null. One that is text already was asked for in this form.
    pub(super) fn write(self, out: &mut Vec<u8>, vector: Option<Dense<'_>>) {
        let bits = |eight: &[f32]| {
            let bit = |(i, x): (usize, &f32)| u8::from(*x > 0.0) << (7 - i);
            eight.iter().enumerate().map(bit).sum::<u8>()
        };
        match (vector, self.text()) {
            (None, _) => out.extend_from_slice(b"null"),
            (Some(Dense::Text(text)), _) => out.extend_from_slice(text.as_bytes()),
            (Some(Dense::Numbers(vector)), Some(text)) => text.write(vector, out),
            (Some(Dense::Numbers(vector)), None) => {
                json::list(out, vector.chunks(8), |out, eight| {
                    let byte = i16::from(bits(eight));
                    let shift = if self == Self::Binary { 128 } else { 0 };
                    json::write(out, &(byte - shift));
                });
            }
        }
    }
}
