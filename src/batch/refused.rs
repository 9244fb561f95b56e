//! The errors that callers get whose inputs are not taken, or are lost on their way.

use std::time::Duration;

use embedgate_request::{Error, ErrorKind};

use super::{load::Refusal, replica::Health};

/// Says why the queue does not take inputs of a lane that can have `capacity` of them at most.
pub(super) fn overloaded(name: &str, refusal: Refusal, capacity: usize) -> Error {
    let (message, retry_after) = match refusal {
        Refusal::Full { retry_after } => {
            let message =
                format!("the queue of model \"{name}\" is full ({capacity} inputs): try again");
            (message, retry_after)
        }
        Refusal::TooLate { retry_after } => {
            let message = format!(
                "the queue of model \"{name}\" takes longer than the time that this request has: try again"
            );
            (message, retry_after)
        }
        Refusal::TooLong { retry_after, most } => {
            let most = humantime::format_duration(most);
            let message = format!(
                "the queue of model \"{name}\" takes longer than its max_queue_time, {most}: try again"
            );
            (message, retry_after)
        }
    };
    let seconds = retry_after.as_secs_f64();
    Error {
        retry_after: Some(retry_after.max(Duration::from_millis(1))),
        ..Error::new(
            ErrorKind::Overloaded,
            format!("{message} in {seconds:.1} s"),
        )
    }
}

/// Says that no replica of the model works.
pub(super) fn down(name: &str, health: &Health) -> Error {
    let message = format!("model \"{name}\" is down after a fault, and being loaded again");
    Error::unavailable(message, health.retry_after()).with_code("model_unavailable")
}

/// Says that the backend was lost while it ran an input.
pub(super) fn lost_while_running(name: &str, health: &Health) -> Error {
    if health.working() == 0 {
        return down(name, health);
    }
    let message = format!("model \"{name}\" lost a backend while it ran this input: try again");
    Error::unavailable(message, Duration::from_secs(1)).with_code("model_unavailable")
}
