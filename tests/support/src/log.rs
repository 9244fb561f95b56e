//! The program's log, read from standard error as it comes.

use std::{
    io::{BufRead, BufReader, Read},
    sync::{Arc, Condvar, Mutex, PoisonError},
    thread::JoinHandle,
    time::Duration,
};

/// Longer than anything takes that a test waits for.
const LIMIT: Duration = Duration::from_secs(60);

/// The log of a running program.
pub(crate) struct Log {
    lines: Arc<Lines>,
    reader: JoinHandle<()>,
}

/// The lines that were read so far.
#[derive(Default)]
pub(crate) struct Lines {
    read: Mutex<Written>,
    more: Condvar,
}

#[derive(Default)]
struct Written {
    text: String,
    has_ended: bool,
}

impl Log {
    pub(crate) fn read(stderr: impl Read + Send + 'static) -> Self {
        let lines = Arc::new(Lines::default());
        let written = Arc::clone(&lines);
        let reader = std::thread::spawn(move || {
            for line in BufReader::new(stderr).lines() {
                written.change(|all| {
                    all.text.push_str(&line.unwrap_or_default());
                    all.text.push('\n');
                });
            }
            written.change(|all| all.has_ended = true);
        });
        Self { lines, reader }
    }

    pub(crate) fn lines(&self) -> Arc<Lines> {
        Arc::clone(&self.lines)
    }

    /// The whole of it, once the program has ended.
    pub(crate) fn whole(self) -> String {
        self.reader.join().unwrap();
        self.lines.text()
    }
}

impl Lines {
    pub(crate) fn text(&self) -> String {
        self.read.lock().unwrap().text.clone()
    }

    /// Waits until the text was written so many times; panics where it is not.
    pub(crate) fn wait_for(&self, text: &str, n: usize) {
        let has = |all: &Written| all.text.matches(text).count() >= n;
        let is_missing = |all: &mut Written| !all.has_ended && !has(all);
        let all = self.read.lock().unwrap();
        let all = self.more.wait_timeout_while(all, LIMIT, is_missing);
        let (all, _) = all.unwrap_or_else(PoisonError::into_inner);
        assert!(has(&all), "{text:?} is not there {n} times:\n{}", all.text);
    }

    fn change(&self, change: impl FnOnce(&mut Written)) {
        change(&mut self.read.lock().unwrap());
        self.more.notify_all();
    }
}
