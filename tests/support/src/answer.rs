//! An answer of the program.

use serde_json::Value;

/// An answer, read whole.
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The headers.
    pub headers: reqwest::header::HeaderMap,
    /// The body: JSON, or else a string.
    pub body: Value,
}

impl Answer {
    /// Reads a response.
    pub async fn of(response: reqwest::Response) -> Self {
        let (status, headers) = (response.status().as_u16(), response.headers().clone());
        let text = response.text().await.unwrap();
        let body = serde_json::from_str(&text).unwrap_or(Value::String(text));
        Self {
            status,
            headers,
            body,
        }
    }

    /// A header, where it is there.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().unwrap())
    }

    /// The message of an error of `OpenAI`'s dialect.
    #[must_use]
    pub fn message(&self) -> &str {
        self.body["error"]["message"].as_str().unwrap_or_default()
    }

    /// The vectors of an answer of `/v1/embeddings`.
    #[must_use]
    pub fn vectors(&self) -> Vec<Vec<f32>> {
        let items = self.body["data"].as_array().unwrap().iter();
        items.map(|item| numbers(&item["embedding"])).collect()
    }
}

/// A list of numbers.
///
/// # Panics
/// Where it is none.
#[must_use]
pub fn numbers(value: &Value) -> Vec<f32> {
    serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{e}: {value}"))
}

/// A list of whole numbers.
///
/// # Panics
/// Where it is none.
#[must_use]
pub fn ids(value: &Value) -> Vec<usize> {
    serde_json::from_value(value.clone()).unwrap_or_else(|e| panic!("{e}: {value}"))
}
