//! The page for people at `/`: what the models do, and a place to try them. Its files are in the program.

use axum::{
    extract::{Path, rejection::PathRejection},
    http::{HeaderMap, Method, Uri, header},
    response::{IntoResponse, Response},
};

use super::{
    GatewayState,
    error::{Failed, no_route},
    health,
};

/// A file of the page.
struct PageFile {
    name: &'static str,
    content_type: &'static str,
    text: &'static str,
}

const HTML: &str = "text/html; charset=utf-8";
const SCRIPT: &str = "text/javascript; charset=utf-8";

/// A file of the folder `page`.
macro_rules! file {
    ($name:literal, $content_type:expr) => {
        PageFile {
            name: $name,
            content_type: $content_type,
            text: include_str!(concat!("page/", $name)),
        }
    };
}

const FILES: [PageFile; 12] = [
    file!("index.html", HTML),
    file!("style.css", "text/css; charset=utf-8"),
    file!("icon.svg", "image/svg+xml"),
    file!("api.js", SCRIPT),
    file!("chart.js", SCRIPT),
    file!("main.js", SCRIPT),
    file!("models.js", SCRIPT),
    file!("play.js", SCRIPT),
    file!("samples.js", SCRIPT),
    file!("snippets.js", SCRIPT),
    file!("traffic.js", SCRIPT),
    file!("words.js", SCRIPT),
];

/// The page runs its own scripts alone, and talks to this server alone.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";

impl PageFile {
    fn respond(&self) -> Response {
        let headers = [
            (header::CONTENT_TYPE, self.content_type),
            (header::CONTENT_SECURITY_POLICY, POLICY),
            (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
            (header::REFERRER_POLICY, "no-referrer"),
            // Another version of the program has other files.
            (header::CACHE_CONTROL, "no-cache"),
            (header::VARY, "accept"),
        ];
        (headers, self.text).into_response()
    }
}

/// `GET /`: the page where a browser asks, else what this server is, in JSON.
pub(super) async fn root(gateway: GatewayState, headers: HeaderMap) -> Response {
    match gateway.config.page && wants_html(&headers) {
        true => FILES[0].respond(),
        false => {
            let vary = [(header::VARY, "accept")];
            (vary, health::root(gateway).await).into_response()
        }
    }
}

/// `GET /page/{file}`: the parts of the page.
pub(super) async fn part(
    gateway: GatewayState,
    method: Method,
    uri: Uri,
    file: Result<Path<String>, PathRejection>,
) -> Result<Response, Failed> {
    let name = file.map(|Path(name)| name).unwrap_or_default();
    let found = FILES.iter().find(|file| file.name == name);
    match found.filter(|_| gateway.config.page) {
        Some(file) => Ok(file.respond()),
        None => Err(no_route(method, uri).await),
    }
}

/// Browsers name this type when a person opens an address, and programs do not.
fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers.get_all(header::ACCEPT).iter();
    let mut accept = accept.filter_map(|value| value.to_str().ok());
    accept.any(|value| value.contains("text/html"))
}
