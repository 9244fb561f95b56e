//! `embedgate top`: what a running server does, in a terminal, by its `/metrics` and `/readyz`.

mod screen;
mod words;

use std::{
    io::{self, IsTerminal},
    sync::mpsc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, anyhow};
use embedgate_config::Environment;
use embedgate_metrics::{Figures, Sample, States};
use embedgate_tools::bench::Connection;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEventKind, KeyModifiers};
use serde_json::Value;
use tokio::runtime::Runtime;

use self::screen::Screen;
use super::{Failure, runtime, say};
use crate::args::top::TopArgs;

/// The server must answer within this time.
const TIMEOUT: Duration = Duration::from_secs(5);
/// Keys are waited for so long before the screen is drawn again.
const TICK: Duration = Duration::from_millis(100);
/// The times between two looks: less would be load, more would be no view.
const TIMES: [Duration; 2] = [Duration::from_millis(100), Duration::from_secs(60)];

pub(super) fn run(args: &TopArgs, environment: &Environment) -> Result<(), Failure> {
    let every = args.every.0;
    if !(TIMES[0]..=TIMES[1]).contains(&every) {
        return Err(anyhow!("--every: must be 100ms to 1m, got {}", args.every).into());
    }
    let key = args.key.as_deref().or(environment.get("EMBEDGATE_KEY"));
    let mut server = Server {
        connection: Connection::new(&args.url, key, None, TIMEOUT),
        name: args
            .url
            .url
            .authority()
            .map_or_else(String::new, ToString::to_string),
        runtime: runtime()?,
    };
    if args.once {
        return Ok(print(&mut server, every)?);
    }
    if !io::stdout().is_terminal() {
        return Err(anyhow!("standard output is no terminal: --once prints the figures").into());
    }
    // A terminal that could be changed in part is put back in any case.
    let result = ratatui::try_init().context("the terminal cannot be used");
    let result = result.and_then(|mut terminal| watch(server, every, &mut terminal));
    ratatui::restore();
    Ok(result?)
}

/// The server that is looked at.
struct Server {
    connection: Connection,
    name: String,
    runtime: Runtime,
}

impl Server {
    fn look(&mut self) -> anyhow::Result<Sample> {
        let (states, metrics) = self.runtime.block_on(async {
            // 503 is an answer, too: models are loaded, or the server ends.
            let states = self.connection.get("/readyz").await?;
            anyhow::Ok((states, self.connection.get("/metrics").await?))
        })?;
        match metrics.status {
            200 => {}
            401 => {
                anyhow::bail!("/metrics asks for a key: give one with --key, or in EMBEDGATE_KEY")
            }
            status => anyhow::bail!("/metrics answers {status}: is {} embedgate?", self.name),
        }
        let text = String::from_utf8_lossy(&metrics.bytes);
        Ok(Sample::new(&text, states_of(&states.bytes), Instant::now()))
    }
}

/// Reads the answer of `/readyz`.
fn states_of(answer: &[u8]) -> States {
    let answer: Value = serde_json::from_slice(answer).unwrap_or_default();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let models = answer["models"].as_array().into_iter().flatten();
    let models = models.map(|model| (text(&model["id"]), text(&model["status"])));
    States {
        // While models are loaded, the answer is an error.
        server: text(answer.get("status").unwrap_or(&answer["error"]["code"])),
        models: models.collect(),
    }
}

/// Prints the figures between two looks.
fn print(server: &mut Server, every: Duration) -> anyhow::Result<()> {
    let before = server.look()?;
    // The figures are rates: some time must go by.
    thread::sleep(every);
    let figures = Figures::between(&before, &server.look()?);
    say(&words::as_text(&figures))
}

/// Shows the figures until somebody quits. The server is looked at from a thread of its own, so that keys count while it does not
/// answer; the thread ends with the program.
fn watch(
    mut server: Server,
    every: Duration,
    terminal: &mut ratatui::DefaultTerminal,
) -> anyhow::Result<()> {
    let mut screen = Screen::new(&server.name, every);
    let (looks, seen) = mpsc::sync_channel(1);
    let look = move || {
        loop {
            let begun = Instant::now();
            if looks.send(server.look()).is_err() {
                return;
            }
            thread::sleep(every.saturating_sub(begun.elapsed()));
        }
    };
    thread::Builder::new().name("look".into()).spawn(look)?;
    loop {
        for look in seen.try_iter() {
            screen.take(look);
        }
        terminal.draw(|frame| screen.draw(frame))?;
        if event::poll(TICK)? && is_quit(&event::read()?) {
            return Ok(());
        }
    }
}

fn is_quit(event: &Event) -> bool {
    let Event::Key(key) = event else {
        return false;
    };
    let is_interrupt =
        key.code == KeyCode::Char('c') && key.modifiers.contains(KeyModifiers::CONTROL);
    key.kind == KeyEventKind::Press
        && (is_interrupt || matches!(key.code, KeyCode::Char('q') | KeyCode::Esc))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_server_that_is_loading_says_so() {
        let states = states_of(br#"{ "error": { "code": "loading" } }"#);
        assert_eq!(
            (states.server.as_str(), states.models.len()),
            ("loading", 0)
        );
        let states =
            states_of(br#"{ "status": "ready", "models": [{ "id": "m", "status": "failed" }] }"#);
        assert_eq!(states.server, "ready");
        assert_eq!(states.models, [("m".to_owned(), "failed".to_owned())]);
    }
}
