//! Shows a pull: by a bar a file and one of all where a person looks on, else by a line now and then.

use std::{
    io::{self, IsTerminal, Write},
    sync::{Mutex, OnceLock, PoisonError},
    time::{Duration, Instant},
};

use embedgate_hub::{ListedFile, Listing, Progress};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

/// Lines are at least so far apart.
const QUIET: Duration = Duration::from_secs(10);
/// Files from this size on have a bar of their own.
const LARGE: u64 = 1 << 20;

/// A pull on standard error.
pub(super) struct Shown {
    is_silent: bool,
    bars: MultiProgress,
    begun: OnceLock<Begun>,
    last_line: Mutex<Instant>,
}

struct Begun {
    files: Vec<Option<ProgressBar>>,
    all: ProgressBar,
    started: Instant,
}

impl Shown {
    pub(super) fn new(is_silent: bool) -> Self {
        let target = match io::stderr().is_terminal() {
            true => ProgressDrawTarget::stderr(),
            false => ProgressDrawTarget::hidden(),
        };
        Self {
            is_silent,
            bars: MultiProgress::with_draw_target(target),
            begun: OnceLock::new(),
            last_line: Mutex::new(Instant::now()),
        }
    }

    /// Takes the bars away.
    pub(super) fn end(&self) {
        // Nothing to clear where nobody looks on.
        drop(self.bars.clear());
    }

    fn line(&self, begun: &Begun) {
        if self.is_silent || io::stderr().is_terminal() {
            return;
        }
        let mut last = self
            .last_line
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if last.elapsed() < QUIET {
            return;
        }
        *last = Instant::now();
        let (done, all) = (begun.all.position(), begun.all.length().unwrap_or(0));
        let rate = done as f64 / begun.started.elapsed().as_secs_f64().max(0.001);
        write_line(&format!(
            "{} of {}, {} a second",
            bytes(done),
            bytes(all),
            bytes(rate_in_bytes(rate))
        ));
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a rate is positive"
)]
fn rate_in_bytes(rate: f64) -> u64 {
    rate as u64
}

/// In one piece. Who reads no lines is fetched for all the same.
fn write_line(text: &str) {
    drop(io::stderr().write_all(format!("{text}\n").as_bytes()));
}

impl Progress for Shown {
    fn begin(&self, listing: &Listing, files: &[&ListedFile]) {
        if self.is_silent {
            return;
        }
        let total = files.iter().map(|file| file.size).sum();
        let text = format!(
            "{} at {} of {}: {} files, {}",
            listing.model,
            listing.commit,
            listing.endpoint,
            files.len(),
            bytes(total)
        );
        write_line(&text);
        let style = |template: &str| {
            ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_bar())
        };
        let bar = |file: &&ListedFile| {
            (file.size >= LARGE).then(|| {
                let bar = self.bars.add(ProgressBar::new(file.size));
                bar.set_style(style("{bytes:>11} of {total_bytes:>11} {bar:30} {msg}"));
                bar.set_message(file.path.clone());
                bar
            })
        };
        let files = files.iter().map(bar).collect();
        let all = self.bars.add(ProgressBar::new(total));
        all.set_style(style(
            "{bytes:>11} of {total_bytes:>11} {bar:30} {binary_bytes_per_sec}, {eta} left",
        ));
        // There is one pull, and it begins once.
        drop(self.begun.set(Begun {
            files,
            all,
            started: Instant::now(),
        }));
    }

    fn came(&self, file: usize, bytes: u64) {
        let Some(begun) = self.begun.get() else {
            return;
        };
        if let Some(bar) = begun.files.get(file).and_then(Option::as_ref) {
            bar.inc(bytes);
        }
        begun.all.inc(bytes);
        self.line(begun);
    }

    fn lost(&self, file: usize, bytes: u64) {
        let Some(begun) = self.begun.get() else {
            return;
        };
        for bar in begun
            .files
            .get(file)
            .and_then(Option::as_ref)
            .into_iter()
            .chain([&begun.all])
        {
            bar.set_position(bar.position().saturating_sub(bytes));
        }
    }

    fn whole(&self, file: usize) {
        let Some(begun) = self.begun.get() else {
            return;
        };
        if let Some(bar) = begun.files.get(file).and_then(Option::as_ref) {
            bar.finish_and_clear();
        }
    }
}

/// Bytes for people, in powers of 1000 as the hubs show them.
pub(in super::super) fn bytes(n: u64) -> String {
    let of = |unit: f64, name: &str| format!("{:.2} {name}", n as f64 / unit);
    match n {
        0..1000 => format!("{n} B"),
        1000..1_000_000 => of(1e3, "kB"),
        1_000_000..1_000_000_000 => of(1e6, "MB"),
        _ => of(1e9, "GB"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_are_shown_as_the_hubs_show_them() {
        for (n, expected) in [
            (999, "999 B"),
            (3516, "3.52 kB"),
            (17_098_108, "17.10 MB"),
            (2_271_145_830, "2.27 GB"),
        ] {
            assert_eq!(bytes(n), expected);
        }
    }
}
