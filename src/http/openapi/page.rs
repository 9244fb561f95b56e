//! The page that shows the document. Its files are in the program.

use std::sync::{Arc, LazyLock};

use axum::{
    extract::{Path, rejection::PathRejection},
    http::{Method, Uri, header},
    response::{IntoResponse, Redirect, Response},
};

use super::super::error::{Failed, no_route};

/// The path of the page, which is in the folder of its files: relative links need the last slash.
const PAGE: &str = "/docs/index.html";

/// `GET /docs`.
pub(in crate::http) async fn to_page() -> Redirect {
    Redirect::temporary(PAGE)
}

/// `GET /docs/{file}`: the page and its parts, which are in the program.
pub(in crate::http) async fn page(
    method: Method,
    uri: Uri,
    file: Result<Path<String>, PathRejection>,
) -> Result<Response, Failed> {
    static CONFIG: LazyLock<Arc<utoipa_swagger_ui::Config<'static>>> =
        LazyLock::new(|| Arc::new(utoipa_swagger_ui::Config::from("/openapi.json")));
    let name = file.map(|Path(name)| name).unwrap_or_default();
    let file = utoipa_swagger_ui::serve(&name, Arc::clone(&CONFIG)).ok();
    let Some(file) = file.flatten() else {
        return Err(no_route(method, uri).await);
    };
    let kind = [(header::CONTENT_TYPE, file.content_type)];
    Ok((kind, file.bytes.into_owned()).into_response())
}
