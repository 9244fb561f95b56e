//! Writes log lines behind the threads that log, many with one call to the system when there are many.
//!
//! A busy server logs a line a request, and each write to the system costs as much as the rest of a small request. A lone
//! line is written at once, lines that follow it within 2 ms together. Nobody who logs waits for a reader, which may be a
//! terminal that was stopped: beyond a megabyte lines are lost, and counted. What a process that is killed had not written
//! is lost, too: at most 2 ms where the log is read.
//!
//! `tracing-appender` 0.2 does not promise this: it bounds the number of lines and not their bytes, loses a line uncounted where a
//! write fails or would wait, and waits 1.1 s at the end without an answer whether all is written. It also says on standard output,
//! which may hold vectors, that its queue is full.

use std::{
    borrow::Cow,
    fs::File,
    io::{self, Write},
    sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError},
    time::Duration,
};

use tracing_subscriber::fmt::MakeWriter;

/// Lines are written together at most so often.
const TOGETHER: Duration = Duration::from_millis(2);
/// Most bytes that wait: a reader that stands still must not cost memory.
const WAITING: usize = 1 << 20;
/// A process that ends waits for its reader at most so long.
const AT_THE_END: Duration = Duration::from_secs(2);

static LINES: OnceLock<Arc<Lines>> = OnceLock::new();

#[derive(Default)]
struct Lines {
    state: Mutex<State>,
    arrived: Condvar,
    written: Condvar,
}

#[derive(Default)]
struct State {
    waiting: Vec<u8>,
    /// True while lines that waited are being written.
    is_writing: bool,
    /// Lines that found no room.
    n_lost: usize,
}

/// The target that the log's formatter writes to.
pub(super) struct Writer(Arc<Lines>);

impl Writer {
    /// Starts the thread that writes to this file.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(out: File) -> io::Result<Self> {
        let lines = Arc::new(Lines::default());
        let behind = Arc::clone(&lines);
        std::thread::Builder::new()
            .name("log".into())
            .spawn(move || behind.write_behind(out))?;
        Ok(Self(lines))
    }

    /// Makes it the log of the process, which [`flush`] waits for.
    pub(super) fn of_the_process(self) -> Self {
        // Never set before: the log is started once.
        drop(LINES.set(Arc::clone(&self.0)));
        self
    }
}

/// Returns true when the process has its log.
pub(super) fn is_started() -> bool {
    LINES.get().is_some()
}

/// Waits until every line is written, or for a reader that stands still no longer than a moment; says whether all is written.
/// To be called before the process ends.
pub(super) fn flush() -> bool {
    LINES.get().is_none_or(|lines| lines.wait(AT_THE_END))
}

impl Lines {
    fn write_behind(&self, mut out: File) {
        loop {
            let mut state = self
                .arrived
                .wait_while(self.lock(), |state| state.waiting.is_empty())
                .unwrap_or_else(PoisonError::into_inner);
            let lines = std::mem::take(&mut state.waiting);
            let n_lost = std::mem::take(&mut state.n_lost);
            state.is_writing = true;
            drop(state);
            write(&mut out, &lines);
            if n_lost > 0 {
                tracing::warn!(
                    n_lost,
                    "{n_lost} lines of the log are lost: it was not read for a while"
                );
            }
            self.lock().is_writing = false;
            self.written.notify_all();
            std::thread::sleep(TOGETHER);
        }
    }

    /// Waits until every line is written, at most so long; says whether it is.
    fn wait(&self, limit: Duration) -> bool {
        let is_open = |state: &mut State| state.is_writing || !state.waiting.is_empty();
        let waited = self.written.wait_timeout_while(self.lock(), limit, is_open);
        let (state, timeout) = waited.unwrap_or_else(PoisonError::into_inner);
        drop(state);
        !timeout.timed_out()
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A line with escapes, as JSON writes them, in place of characters that end lines, turn the direction of writing or steer
/// terminals: those of C1, U+2028, U+2029 and the marks of direction. (Formatters escape those of ASCII.)
fn printable(line: &[u8]) -> Cow<'_, [u8]> {
    let may_need = |byte: &u8| matches!(byte, 0xc2 | 0xd8 | 0xe2 | 0xef);
    let Some(text) = line
        .iter()
        .any(may_need)
        .then(|| str::from_utf8(line).ok())
        .flatten()
    else {
        return line.into();
    };
    let is_odd = |c: char| {
        matches!(
            c,
            '\u{80}'..='\u{9f}'
                | '\u{61c}'
                | '\u{200e}'
                | '\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2066}'..='\u{2069}'
                | '\u{feff}'
        )
    };
    if !text.contains(is_odd) {
        return line.into();
    }
    let mut escaped = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        if is_odd(c) {
            escaped.push_str(&format!("\\u{:04x}", u32::from(c)));
        } else {
            escaped.push(c);
        }
    }
    escaped.into_bytes().into()
}

/// Writes as much as can be written: an error means that nobody reads the log, and there is nobody to tell.
fn write(out: &mut File, mut lines: &[u8]) {
    while !lines.is_empty() {
        match out.write(lines) {
            Ok(0) => return,
            Ok(n) => lines = &lines[n..],
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            // Somebody else who has this terminal, or pipe, wants nobody to wait for it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => std::thread::sleep(TOGETHER),
            Err(_) => return,
        }
    }
}

impl<'a> MakeWriter<'a> for Writer {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line(&self.0)
    }
}

/// Takes one line.
pub(super) struct Line<'a>(&'a Lines);

impl Write for Line<'_> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let shown = printable(line);
        let mut state = self.0.lock();
        if state.waiting.len() + shown.len() > WAITING {
            state.n_lost += 1;
            return Ok(line.len());
        }
        let was_empty = state.waiting.is_empty();
        state.waiting.extend_from_slice(&shown);
        drop(state);
        if was_empty {
            self.0.arrived.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::{BufRead, BufReader, Read},
        os::fd::OwnedFd,
    };

    use super::*;

    #[test]
    fn what_steers_a_terminal_or_turns_a_line_is_escaped() {
        let line = "a\u{9b}31m b\u{85}c\u{2028}d\u{202e}e \u{6f22}\u{e9}\n";
        let shown = printable(line.as_bytes());
        let expected = "a\\u009b31m b\\u0085c\\u2028d\\u202ee \u{6f22}\u{e9}\n";
        assert_eq!(str::from_utf8(&shown), Ok(expected));
        let plain = "\u{1b}[32m INFO\u{1b}[0m \u{6f22}\n".as_bytes();
        assert!(matches!(printable(plain), Cow::Borrowed(same) if same == plain));
    }

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
        assert!(writer.0.wait(Duration::MAX));
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

    #[test]
    fn nobody_waits_for_a_reader_that_stands_still() {
        let (reader, out) = io::pipe().unwrap();
        let writer = Writer::start(File::from(OwnedFd::from(out))).unwrap();
        let log = |line: &str| writer.make_writer().write_all(line.as_bytes()).unwrap();
        // More than a pipe holds, in one piece that is being written from here on.
        log(&format!("{}\n", "0".repeat(200_000)));
        while !writer.0.lock().waiting.is_empty() {
            std::thread::yield_now();
        }
        let (n, room) = (20_000, WAITING / 100);
        for i in 1..=n {
            log(&format!("{i:0>99}\n"));
        }
        assert_eq!(writer.0.lock().n_lost, n - room);
        assert!(!writer.0.wait(Duration::from_millis(1)));
        let kept = BufReader::new(reader).lines().take(1 + room);
        let kept: Vec<usize> = kept.map(|line| line.unwrap().parse().unwrap()).collect();
        assert_eq!(kept, (0..=room).collect::<Vec<_>>());
    }
}
