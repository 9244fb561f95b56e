//! Writes log lines behind the threads that log, many with one call to the system when there are many.
//!
//! A busy server logs a line a request, and each write to the system costs as much as the rest of a small request. A lone
//! line is written at once, lines that follow it within 2 ms together; warnings and errors are written by whoever logs
//! them, with all that stands before them. What a process that is killed had not written is lost: at most 2 ms.

use std::{
    fs::File,
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

/// Lines are written together at most so often.
const TOGETHER: Duration = Duration::from_millis(2);
/// With so many bytes waiting, whoever logs writes: a reader that stands still must not cost memory.
const WAITING: usize = 1 << 20;

static LINES: OnceLock<Arc<Lines>> = OnceLock::new();

struct Lines {
    waiting: Mutex<Vec<u8>>,
    arrived: Condvar,
    /// Held while lines are taken and written, so that they keep their order.
    out: Mutex<File>,
}

/// What the log's formatter writes to.
pub(super) struct Writer(Arc<Lines>);

impl Writer {
    /// Starts the thread that writes to this file.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(out: File) -> io::Result<Self> {
        let lines = Arc::new(Lines {
            waiting: Mutex::default(),
            arrived: Condvar::new(),
            out: Mutex::new(out),
        });
        let behind = Arc::clone(&lines);
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || behind.write_behind())?;
        // Never set before: the log is started once.
        drop(LINES.set(Arc::clone(&lines)));
        Ok(Self(lines))
    }
}

/// Writes every line that waits. To be called before the process ends.
pub(super) fn flush() {
    if let Some(lines) = LINES.get() {
        lines.write_waiting();
    }
}

impl Lines {
    fn write_behind(&self) {
        loop {
            let waiting = self.lock();
            let arrived = self.arrived.wait_while(waiting, |lines| lines.is_empty());
            drop(arrived);
            self.write_waiting();
            std::thread::sleep(TOGETHER);
        }
    }

    fn write_waiting(&self) {
        let mut out = self.out.lock().unwrap_or_else(PoisonError::into_inner);
        let lines = std::mem::take(&mut *self.lock());
        // An error means that nobody reads the log: there is nobody to tell.
        drop(out.write_all(&lines));
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line {
            lines: &self.0,
            at_once: false,
        }
    }

    fn make_writer_for(&'a self, metadata: &Metadata<'_>) -> Line<'a> {
        Line {
            lines: &self.0,
            at_once: *metadata.level() <= Level::WARN,
        }
    }
}

/// Takes one line.
pub(super) struct Line<'a> {
    lines: &'a Lines,
    at_once: bool,
}

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let mut waiting = self.lines.lock();
        let was_empty = waiting.is_empty();
        waiting.extend_from_slice(line);
        let is_full = waiting.len() > WAITING;
        drop(waiting);
        if self.at_once || is_full {
            self.lines.write_waiting();
        } else if was_empty {
            self.lines.arrived.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;

    #[test]
    fn lines_of_many_threads_come_whole_and_each_threads_in_order() {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let writer = Writer::start(file.reopen().unwrap()).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let writer = &writer;
                scope.spawn(move || {
                    for i in 0..500 {
                        let line = format!("{thread} {i}\n");
                        writer.make_writer().write_all(line.as_bytes()).unwrap();
                    }
                });
            }
        });
        writer.0.write_waiting();
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        for thread in 0..4 {
            let prefix = format!("{thread} ");
            let own = text.lines().filter_map(|line| line.strip_prefix(&prefix));
            let expected: Vec<String> = (0..500).map(|i| i.to_string()).collect();
            assert_eq!(own.collect::<Vec<_>>(), expected);
        }
        assert_eq!(text.lines().count(), 2000);
    }
}
