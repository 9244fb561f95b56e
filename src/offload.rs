//! Keeps long arithmetic off the threads that serve connections.

use embedgate_request::Error;

/// Runs `work` here, or where it may take its time when it is `heavy`.
///
/// # Errors
/// Internal when the work panics elsewhere; here a panic goes on as one.
pub(crate) async fn run_if<T: Send + 'static>(
    heavy: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    if heavy {
        tokio::task::spawn_blocking(work)
            .await
            .map_err(Error::internal)
    } else {
        Ok(work())
    }
}
