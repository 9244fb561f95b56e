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
const STYLE: &str = "text/css; charset=utf-8";
const ICON: &str = "image/svg+xml";

const FILES: [PageFile; 12] = [
    PageFile::new("index.html", HTML, include_str!("page/index.html")),
    PageFile::new("style.css", STYLE, include_str!("page/style.css")),
    PageFile::new("icon.svg", ICON, include_str!("page/icon.svg")),
    PageFile::new("api.js", SCRIPT, include_str!("page/api.js")),
    PageFile::new("chart.js", SCRIPT, include_str!("page/chart.js")),
    PageFile::new("main.js", SCRIPT, include_str!("page/main.js")),
    PageFile::new("models.js", SCRIPT, include_str!("page/models.js")),
    PageFile::new("play.js", SCRIPT, include_str!("page/play.js")),
    PageFile::new("samples.js", SCRIPT, include_str!("page/samples.js")),
    PageFile::new("snippets.js", SCRIPT, include_str!("page/snippets.js")),
    PageFile::new("traffic.js", SCRIPT, include_str!("page/traffic.js")),
    PageFile::new("words.js", SCRIPT, include_str!("page/words.js")),
];

/// The page runs its own scripts alone, and talks to this server alone.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; form-action 'self'; \
                      base-uri 'none'; frame-ancestors 'none'";

impl PageFile {
    const fn new(name: &'static str, content_type: &'static str, text: &'static str) -> Self {
        Self {
            name,
            content_type,
            text,
        }
    }

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

/// Browsers name both types when a person opens an address. Libraries that name `text/html` by habit, such as Java's, leave the other
/// out.
fn wants_html(headers: &HeaderMap) -> bool {
    let accept = headers.get_all(header::ACCEPT).iter();
    let mut accept = accept.filter_map(|value| value.to_str().ok());
    accept.any(|value| value.contains("text/html") && value.contains("application/xhtml+xml"))
}
