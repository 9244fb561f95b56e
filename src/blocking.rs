//! Keeps long arithmetic off the threads that serve connections.

use embedgate_request::Error;

/// Runs `work` here, or on a thread for blocking work where it `is_large`.
///
/// # Errors
/// Internal when the work panics elsewhere; here a panic goes on as one.
pub(crate) async fn run_if_large<T: Send + 'static>(
    is_large: bool,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Error> {
    if is_large {
        tokio::task::spawn_blocking(work)
            .await
            .map_err(Error::internal)
    } else {
        Ok(work())
    }
}
