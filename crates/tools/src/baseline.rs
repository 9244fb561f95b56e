//! A server that does nothing but answer: what `embedgate bench --bare` compares with.

use axum::{
    Router,
    body::{Body, Bytes},
    extract::DefaultBodyLimit,
    http::header,
    response::IntoResponse,
    routing::post,
};
use http_body_util::BodyExt;
use tokio::net::TcpListener;

/// Reads every request and answers the same bytes, until the process ends.
///
/// # Errors
/// When the listener fails.
pub async fn serve(listener: TcpListener, answer: Vec<u8>) -> std::io::Result<()> {
    let answer = Bytes::from(answer);
    let handler = move |body: Body| {
        let answer = answer.clone();
        async move {
            // An error means that the client broke off.
            drop(body.collect().await);
            ([(header::CONTENT_TYPE, "application/json")], answer).into_response()
        }
    };
    let router = Router::new()
        .fallback(post(handler))
        .layer(DefaultBodyLimit::disable());
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let router = router.clone();
        tokio::spawn(async move {
            let service = hyper_util::service::TowerToHyperService::new(router);
            let io = hyper_util::rt::TokioIo::new(stream);
            let connection =
                hyper::server::conn::http1::Builder::new().serve_connection(io, service);
            // A broken connection is the client's business.
            drop(connection.await);
        });
    }
}
