//! The requests of each provider: for embeddings, and for reranking.

use serde_json::{Value, json};

use super::{
    answers::{N_TEXTS, bare_ranks, bare_vectors, base64, floats, of_ollama, ranks},
    probe::{Key, Probe},
};

fn texts() -> Vec<String> {
    // An empty chunk comes as this word.
    let known = ["Test if the model works.", "测试", "None"].map(str::to_owned);
    let chunks = (known.len()..N_TEXTS).map(|i| format!("Chunk {i} of a document."));
    known.into_iter().chain(chunks).collect()
}

/// The requests of providers of embeddings.
///
/// Source: RAGFlow 0.26.4 and 0.27.0, `rag/llm/embedding_model.py`.
pub(super) fn embedding(model: &str) -> Vec<Probe> {
    let openai = |providers, key, more: Value, read| {
        let mut body = json!({"input": texts(), "model": model});
        body.as_object_mut()
            .into_iter()
            .for_each(|body| body.extend(more.as_object().cloned().unwrap_or_default()));
        Probe {
            providers,
            path: "/v1/embeddings",
            key,
            body,
            read,
        }
    };
    let as_floats = json!({"encoding_format": "float", "drop_params": true});
    // What the client adds where no form is named.
    let as_base64 = || json!({"encoding_format": "base64"});
    vec![
        openai(
            "OpenAI-API-Compatible, VLLM, GPUStack",
            Key::Typed,
            as_floats,
            floats as fn(&Value) -> _,
        ),
        openai("Xinference", Key::Typed, as_base64(), base64),
        openai("LocalAI", Key::Own("empty"), as_base64(), base64),
        openai("LM-Studio", Key::Own("lm-studio"), as_base64(), base64),
        Probe {
            providers: "Ollama",
            path: "/api/embed",
            key: Key::Typed,
            body: json!({"model": model, "input": texts(), "options": {"use_mmap": true}, "keep_alive": -1}),
            read: of_ollama,
        },
        Probe {
            providers: "HuggingFace, Builtin",
            path: "/embed",
            key: Key::Never,
            body: json!({"inputs": texts(), "normalize": true, "truncate": true}),
            read: bare_vectors,
        },
    ]
}

/// The requests of providers of reranking.
///
/// Source: RAGFlow 0.26.4 and 0.27.0, `rag/llm/rerank_model.py`.
pub(super) fn reranking(model: &str) -> Vec<Probe> {
    let documents = ["RAGFlow reads documents.", "Rice is cooked in water."];
    let query = "What reads documents?";
    let plain = json!({"model": model, "query": query, "documents": documents, "top_n": 2});
    let by_plain = |providers, path| Probe {
        providers,
        path,
        key: Key::Typed,
        body: plain.clone(),
        read: ranks,
    };
    vec![
        by_plain("OpenAI-API-Compatible, rerank", "/v1/rerank"),
        by_plain("VLLM, GPUStack, rerank", "/v1/v1/rerank"),
        by_plain("LocalAI, rerank", "/rerank"),
        Probe {
            providers: "Xinference, rerank",
            path: "/v1/rerank",
            key: Key::Typed,
            body: json!({"model": model, "query": query, "documents": documents,
                "return_documents": "true", "return_len": "true"}),
            read: ranks,
        },
        Probe {
            providers: "HuggingFace, rerank",
            path: "/rerank",
            key: Key::Never,
            body: json!({"query": query, "texts": documents, "raw_scores": false, "truncate": true}),
            read: bare_ranks,
        },
    ]
}
