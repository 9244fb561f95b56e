//! Sets the log up: one subscriber, text or JSON lines on standard error.

mod lines;

use std::{fs::File, io::IsTerminal, os::fd::AsFd};

use embedgate_config::{LogConfig, LogFormat, LogLevel};
use tracing_subscriber::{
    Layer,
    filter::{LevelFilter, Targets},
    fmt::{format::debug_fn, writer::BoxMakeWriter},
    layer::SubscriberExt,
    util::SubscriberInitExt,
};

/// Starts logging. Does nothing when logging has been started already.
pub(crate) fn init(config: &LogConfig) {
    if lines::is_started() {
        return;
    }
    let level = match config.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    // What libraries say below a warning helps nobody who did not ask for it.
    let others = if level > LevelFilter::INFO {
        level
    } else {
        level.min(LevelFilter::WARN)
    };
    // A target covers those that begin with its name: all crates of embedgate's own.
    let filter = Targets::new()
        .with_default(others)
        .with_target("embedgate", level);
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(writer())
        .with_target(false);
    let layer = match config.format {
        // For people the message says it all; the fields are for machines. The ids of a request and of
        // its trace are what binds lines together.
        LogFormat::Text => {
            let fields = debug_fn(|writer, field, value| match field.name() {
                "message" => write!(writer, "{value:?}"),
                "id" => write!(writer, " id={value:?}"),
                "trace_id" => write!(writer, " trace_id={value:?}"),
                _ => Ok(()),
            });
            lines
                .with_ansi(std::io::stderr().is_terminal())
                .fmt_fields(fields)
                .boxed()
        }
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    // An error means that a test in this process has set one up.
    drop(
        tracing_subscriber::registry()
            .with(layer.with_filter(filter))
            .try_init(),
    );
    log_panics();
}

fn writer() -> BoxMakeWriter {
    let own = std::io::stderr().as_fd().try_clone_to_owned();
    match own.and_then(|stderr| lines::Writer::start(File::from(stderr))) {
        Ok(lines) => BoxMakeWriter::new(lines.of_the_process()),
        Err(_) => BoxMakeWriter::new(std::io::stderr),
    }
}

/// Waits until what was logged is written, but no longer than a moment where nobody reads it; says whether it is. To be called
/// before the process ends.
pub(crate) fn flush() -> bool {
    lines::flush()
}

/// A panic becomes a log line like any other. Its message is ours or a library's, up to the first backtick: what the
/// standard library quotes in those may be a client's text.
fn log_panics() {
    std::panic::set_hook(Box::new(|panic| {
        let place = panic
            .location()
            .map(ToString::to_string)
            .unwrap_or_default();
        let message = panic.payload_as_str().unwrap_or("without a message");
        let message = message.split('`').next().unwrap_or_default();
        let thread = std::thread::current()
            .name()
            .unwrap_or("unnamed")
            .to_owned();
        tracing::error!(
            place,
            thread,
            "panic in thread {thread} at {place}: {message}"
        );
        // It may end the process.
        lines::flush();
    }));
}
