//! `POST /embedding`, as Coze Studio and as llama.cpp speak it: the body tells which. And `GET /support_status` of Coze Studio.
//!
//! Source: Coze Studio, `backend/infra/embedding/impl/http/http.go`; llama.cpp, `tools/server/README.md`.

use axum::response::Response;
use embedgate_core::{Head, Outputs};
use embedgate_request::{EmbedRequest, EmbedResponse, Error, TokenIds, VectorText};
use serde::Deserialize;

use super::{
    GatewayState,
    admitted_request::AdmittedRequest,
    context::Context,
    dense::DenseForm,
    error::Failed,
    foreign::{Foreign, foreign},
    input::{self, Inputs, texts},
    json,
    member::Raw,
    object::{Members, Source},
};

/// llama.cpp's own: 2 is the Euclidean length, which vectors have here.
const FOREIGN: &[Foreign] = &[foreign("embd_normalize", &["2"], "leave it out")];

/// The status that Coze Studio reads from a server that gives only dense vectors, and from one that also gives lexical
/// weights.
const DENSE: &str = "1";
const DENSE_AND_SPARSE: &str = "3";

/// The body of a request: Coze Studio's with `texts`, llama.cpp's with `content`.
#[derive(Deserialize)]
struct EmbeddingRequest<'a> {
    model: Option<String>,
    #[serde(borrow)]
    texts: Option<Raw<'a>>,
    need_sparse: Option<bool>,
    content: Option<Raw<'a>>,
}

impl<'a> Members<'a> for EmbeddingRequest<'a> {
    const NEEDED: &'static str = "texts, or content";
    const FOREIGN: &'static [Foreign] = FOREIGN;
}

/// The API whose form the answer has.
#[derive(Clone, Copy)]
enum Shape {
    Coze,
    LlamaCpp,
}

pub(super) async fn embed(admitted: AdmittedRequest) -> Result<Response, Failed> {
    let (request, shape) = admitted.parse(parse).await?;
    let answer = admitted.embed(request).await?;
    let render = move |answer: &EmbedResponse| match shape {
        Shape::Coze => render_coze(answer),
        Shape::LlamaCpp => render_llama_cpp(answer),
    };
    Ok(answer.write(render).await?)
}

/// `GET /support_status`: what the default model gives.
pub(super) async fn support_status(
    gateway: GatewayState,
    Context(ctx): Context,
) -> Result<&'static str, Failed> {
    let embedder = gateway.embedder()?;
    let model = embedder.registry().resolve_for(&ctx.principal, None)?;
    Ok(match model.info.outputs.has(Head::Sparse) {
        true => DENSE_AND_SPARSE,
        false => DENSE,
    })
}

fn parse(source: &mut Source<'_>) -> Result<(EmbedRequest, Shape), Error> {
    let body: EmbeddingRequest<'_> = source.members()?;
    let max = source.max_inputs;
    let (shape, given) = match (body.texts, body.content) {
        (None, Some(content)) => {
            let content = input::read(Inputs::alike("content", max), Some(content))?;
            (Shape::LlamaCpp, content)
        }
        (given, _) => (Shape::Coze, texts("texts", given, max)?),
    };
    let request = EmbedRequest {
        model: body.model,
        outputs: Outputs::DENSE.with_if(body.need_sparse.unwrap_or(false), Head::Sparse),
        text: Some(VectorText::Numbers),
        token_ids: TokenIds::Native,
        ..EmbedRequest::new(given)
    };
    Ok((request, shape))
}

fn render_coze(answer: &EmbedResponse) -> Vec<u8> {
    let mut out = br#"{"dense":"#.to_vec();
    DenseForm::Float.write_all(&mut out, answer);
    out.extend_from_slice(br#","sparse":"#);
    let sparse = answer
        .embeddings
        .iter()
        .filter_map(|e| e.results.weights(Head::Sparse));
    json::list(&mut out, sparse, |out, weights| {
        out.push(b'{');
        let pairs = weights.indices.iter().zip(&weights.values);
        for (i, (id, weight)) in pairs.enumerate() {
            if i > 0 {
                out.push(b',');
            }
            json::write(out, &id.to_string());
            out.push(b':');
            json::write(out, weight);
        }
        out.push(b'}');
    });
    out.push(b'}');
    out
}

/// A vector is in a list of one: without pooling there it would be one of several.
fn render_llama_cpp(answer: &EmbedResponse) -> Vec<u8> {
    let mut out = Vec::new();
    let all = answer.embeddings.iter().enumerate();
    json::list(&mut out, all, |out, (i, embedding)| {
        out.extend_from_slice(br#"{"index":"#);
        json::write(out, &i);
        out.extend_from_slice(br#","embedding":["#);
        DenseForm::Float.write(out, embedding.dense());
        out.extend_from_slice(b"]}");
    });
    out
}
