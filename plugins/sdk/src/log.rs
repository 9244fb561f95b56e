//! Lines in the gateway's log. Keys, headers and texts do not belong there.

use crate::host::log;

pub use crate::bindings::host::embedgate::plugin::log::Level;

/// Writes a line; past 20 lines or 16 KiB in a call they are dropped and counted.
pub fn write(level: Level, message: &str, fields: &[(String, String)]) {
    log::write(level, message, fields);
}

/// Returns whether somebody reads lines of this level.
pub fn enabled(level: Level) -> bool {
    log::enabled(level)
}

/// Writes a line of a level, with fields in braces before the message: `log!(level, { user = name }, "{n} keys")`.
///
/// Nothing is formatted for a level that nobody reads.
#[macro_export]
macro_rules! log {
    ($level:expr, { $($field:ident = $value:expr),* $(,)? }, $($message:tt)+) => {
        if $crate::log::enabled($level) {
            let fields = [$((stringify!($field).to_owned(), $value.to_string())),*];
            $crate::log::write($level, &format!($($message)+), &fields);
        }
    };
    ($level:expr, $($message:tt)+) => {
        $crate::log!($level, {}, $($message)+)
    };
}

/// Writes a line of level `trace`, as [`log!`](crate::log!).
#[macro_export]
macro_rules! trace {
    ($($line:tt)+) => { $crate::log!($crate::log::Level::Trace, $($line)+) };
}

/// Writes a line of level `debug`, as [`log!`](crate::log!).
#[macro_export]
macro_rules! debug {
    ($($line:tt)+) => { $crate::log!($crate::log::Level::Debug, $($line)+) };
}

/// Writes a line of level `info`, as [`log!`](crate::log!).
#[macro_export]
macro_rules! info {
    ($($line:tt)+) => { $crate::log!($crate::log::Level::Info, $($line)+) };
}

/// Writes a line of level `warn`, as [`log!`](crate::log!).
#[macro_export]
macro_rules! warn {
    ($($line:tt)+) => { $crate::log!($crate::log::Level::Warn, $($line)+) };
}

/// Writes a line of level `error`, as [`log!`](crate::log!).
#[macro_export]
macro_rules! error {
    ($($line:tt)+) => { $crate::log!($crate::log::Level::Error, $($line)+) };
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::test::{Line, TestHost};

    #[test]
    fn a_line_has_its_fields_beside_its_message() {
        let host = TestHost::new();
        let n = 2;
        crate::info!({ subject = "ali", n = n + 1 }, "{n} of {}", 3);
        crate::warn!("alone");
        let fields = vec![
            ("subject".to_owned(), "ali".to_owned()),
            ("n".to_owned(), "3".to_owned()),
        ];
        let first = Line {
            level: Level::Info,
            message: "2 of 3".to_owned(),
            fields,
        };
        let second = Line {
            level: Level::Warn,
            message: "alone".to_owned(),
            fields: Vec::new(),
        };
        assert_eq!(host.log_lines(), [first, second]);
    }
}
