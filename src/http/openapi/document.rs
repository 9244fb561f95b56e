//! Builds the document from the route table.

use std::collections::BTreeMap;

use embedgate_request::{Error, ErrorKind, Route};
use utoipa::{
    PartialSchema,
    openapi::{
        ComponentsBuilder, Content, ContentBuilder, Header, HeaderBuilder, HttpMethod, InfoBuilder,
        LicenseBuilder, OneOfBuilder, OpenApi, OpenApiBuilder, Paths, Ref, RefOr, Required,
        Response as Described, ResponseBuilder, Schema, SecurityRequirement,
        path::{OperationBuilder, ParameterBuilder, ParameterIn},
        request_body::RequestBodyBuilder,
        security::{HttpAuthScheme, HttpBuilder, SecurityScheme},
        tag::{Tag, TagBuilder},
    },
};

use super::{
    super::{
        dialect::{Dialect, EMPTY},
        error::status,
        routes::{Endpoint, RouteInfo, endpoints},
    },
    failures,
    operation::Operation,
};

/// The group of routes that need no key.
const OPEN_TAG: &str = "health";
/// The name of the scheme by which callers say who they are.
const KEY: &str = "api_key";
const REQUEST_ID: &str = "This request's id, as in the log.";

/// In the order of use.
fn tags() -> Vec<Tag> {
    let of = |name: &str, description: &str| {
        let tag = TagBuilder::new().name(name);
        tag.description(Some(description)).build()
    };
    vec![
        of(Route::Embeddings.name(), "Vectors, as OpenAI"),
        of(
            Route::Rerank.name(),
            "Rankings, as Jina, Cohere, vLLM and NVIDIA",
        ),
        of(Route::Models.name(), "What serves"),
        of(Route::Tei.name(), "As text-embeddings-inference"),
        of(Route::Ollama.name(), "As Ollama"),
        of(Route::Cohere.name(), "As Cohere"),
        of(OPEN_TAG, "Without a key"),
    ]
}

/// The document, with keys where they are needed.
pub(super) fn build(needs_keys: bool) -> OpenApi {
    let (mut paths, mut components) = (Paths::new(), ComponentsBuilder::new());
    for endpoint in endpoints() {
        let Some(operation) = &endpoint.operation else {
            continue;
        };
        let failure = failures::envelope(endpoint.info.dialect);
        let bodies = operation
            .request
            .iter()
            .chain(&operation.answer)
            .chain([&failure]);
        components = components.schemas_from_iter(bodies.flat_map(|body| body.schemas.clone()));
        // The document has no word for parameters that hold slashes.
        let path = endpoint.path.replace("{*", "{");
        let method = operation.method.clone();
        let described = described(&endpoint, operation, needs_keys);
        paths.add_path_operation(path, vec![method], described);
    }
    let key = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An API key."));
    let info = InfoBuilder::new()
        .title("embedgate")
        .version(env!("CARGO_PKG_VERSION"))
        .description(Some(include_str!("about.md")))
        .license(Some(
            LicenseBuilder::new()
                .name("Apache-2.0")
                .identifier(Some("Apache-2.0"))
                .build(),
        ));
    if needs_keys {
        components = components.security_scheme(KEY, SecurityScheme::Http(key.build()));
    }
    OpenApiBuilder::new()
        .info(info)
        .tags(Some(tags()))
        .paths(paths)
        .components(Some(components.build()))
        .build()
}

/// An operation in the document's words.
fn described(
    endpoint: &Endpoint,
    operation: &Operation,
    needs_keys: bool,
) -> utoipa::openapi::path::Operation {
    let RouteInfo { route, dialect } = endpoint.info;
    let tag = route.map_or(OPEN_TAG, Route::name);
    let words = endpoint
        .path
        .split(|c: char| !c.is_alphanumeric())
        .filter(|w| !w.is_empty());
    let id: Vec<&str> = std::iter::once(operation.verb()).chain(words).collect();
    let mut answer = ResponseBuilder::new()
        .description("The answer.")
        .header("x-request-id", text_header(REQUEST_ID));
    if operation.method == HttpMethod::Post {
        let cut = "Which inputs were cut, if any, as index:from>to in tokens, separated by commas; the query of a reranking as query:from>to.";
        answer = answer.header("x-truncated", text_header(cut));
    }
    if let Some(body) = &operation.answer {
        answer = answer.content("application/json", content(body.reference()));
    }
    let mut described = OperationBuilder::new()
        .tag(tag)
        .summary(Some(operation.summary))
        .description(Some(operation.description).filter(|text| !text.is_empty()))
        .operation_id(Some(id.join("_")))
        .response("200", answer);
    let parameters = endpoint.path.split(['{', '}']).skip(1).step_by(2);
    for name in parameters {
        let parameter = ParameterBuilder::new()
            .name(name.trim_start_matches('*'))
            .parameter_in(ParameterIn::Path)
            .required(Required::True)
            .schema(Some(String::schema()));
        described = described.parameter(parameter);
    }
    if let Some(request) = &operation.request {
        let mut content = content(request.reference());
        content.example = operation.example.map(|example| {
            serde_json::from_str(example).expect("an example is JSON, which a test sends")
        });
        let body = RequestBodyBuilder::new()
            .required(Some(Required::True))
            .content("application/json", content);
        described = described.request_body(Some(body.build()));
    }
    if needs_keys && route.is_some() {
        described = described.security(SecurityRequirement::new::<_, [&str; 0], &str>(KEY, []));
    }
    let dialects: Vec<Dialect> = std::iter::once(dialect).chain(operation.also).collect();
    for (status, response) in described_failures(&dialects, operation.failures) {
        described = described.response(status.to_string(), response);
    }
    described.build()
}

/// Describes the failures of each status; a status that dialects share may have the envelope of each of them.
fn described_failures(dialects: &[Dialect], kinds: &[ErrorKind]) -> BTreeMap<u16, Described> {
    let mut found: BTreeMap<u16, (Error, Vec<Dialect>)> = BTreeMap::new();
    for &dialect in dialects {
        for error in kinds.iter().flat_map(|&kind| errors(dialect, kind)) {
            let (_, who) = found
                .entry(status(dialect, &error))
                .or_insert((error, Vec::new()));
            who.push(dialect);
        }
    }
    let described = found.into_iter().map(|(status, (error, who))| {
        let mut response = ResponseBuilder::new()
            .description(failures::meaning(&error))
            .header("x-request-id", text_header(REQUEST_ID));
        if matches!(error.kind, ErrorKind::Overloaded | ErrorKind::Unavailable) {
            response = response.header("retry-after", text_header("Seconds to wait, at most 60."));
        }
        let envelopes: Vec<Ref> = who
            .into_iter()
            .map(|dialect| failures::envelope(dialect).reference())
            .collect();
        let schema: RefOr<Schema> = match <[Ref; 1]>::try_from(envelopes) {
            Ok([one]) => one.into(),
            Err(several) => {
                let either = several
                    .into_iter()
                    .fold(OneOfBuilder::new(), OneOfBuilder::item);
                either.into()
            }
        };
        let content = ContentBuilder::new().schema(Some(schema)).build();
        (
            status,
            response.content("application/json", content).build(),
        )
    });
    described.collect()
}

/// One error of each status that a kind has in a dialect.
fn errors(dialect: Dialect, kind: ErrorKind) -> Vec<Error> {
    let error = Error::new(kind, "");
    match (dialect, kind) {
        (Dialect::Tei, ErrorKind::InvalidRequest) => vec![error.clone().with_code(EMPTY), error],
        _ => vec![error],
    }
}

fn content(reference: Ref) -> Content {
    ContentBuilder::new().schema(Some(reference)).build()
}

fn text_header(description: &str) -> Header {
    HeaderBuilder::new()
        .schema(Some(String::schema()))
        .description(Some(description))
        .build()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use serde_json::Value;

    use super::*;

    fn document() -> Value {
        serde_json::to_value(build(true)).unwrap()
    }

    #[test]
    fn references_lead_somewhere_and_operations_have_names_of_their_own() {
        let document = document();
        let text = document.to_string();
        let schemas = document["components"]["schemas"].as_object().unwrap();
        let start = "\"#/components/schemas/";
        for reference in text.split(start).skip(1) {
            let name = reference.split('"').next().unwrap();
            assert!(schemas.contains_key(name), "{name}");
        }
        let n = text.matches("operationId").count();
        let ids: BTreeSet<&str> = text
            .split("\"operationId\":\"")
            .skip(1)
            .map(|rest| rest.split('"').next().unwrap())
            .collect();
        assert_eq!(ids.len(), n);
        assert!(n > 15, "{n}");
    }

    #[test]
    fn statuses_are_those_of_the_dialect() {
        let document = document();
        let statuses = |path: &str| -> Vec<String> {
            let responses = &document["paths"][path]["post"]["responses"];
            responses.as_object().unwrap().keys().cloned().collect()
        };
        assert!(!statuses("/v1/embeddings").contains(&"422".into()));
        let tei = statuses("/embed");
        assert!(
            ["400", "422", "424"]
                .iter()
                .all(|status| tei.contains(&(*status).into())),
            "{tei:?}"
        );
    }
}
