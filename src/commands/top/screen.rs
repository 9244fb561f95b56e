//! Draws the figures on a terminal.

use std::{collections::VecDeque, time::Duration};

use embedgate_metrics::{Figures, Sample};
use ratatui::{
    Frame,
    layout::{Constraint, Layout, Rect},
    style::{Color, Style, Stylize},
    text::{Line, Span},
    widgets::{Block, Paragraph, Row, Sparkline, Table},
};

use super::words::{COLUMNS, cells, named};

/// Points of a chart that are kept: more than terminals are wide.
const MOST_POINTS: usize = 500;

/// The content of the screen.
pub(super) struct Screen {
    /// The server, and how often it is looked at.
    title: String,
    before: Option<Sample>,
    figures: Option<Figures>,
    /// Why there are no figures.
    problem: Option<String>,
    requests: VecDeque<f64>,
    tokens: VecDeque<f64>,
}

impl Screen {
    /// An empty one.
    pub(super) fn new(server: &str, every: Duration) -> Self {
        Self {
            title: format!(" embedgate at {server}, every {every:?} "),
            before: None,
            figures: None,
            problem: None,
            requests: VecDeque::new(),
            tokens: VecDeque::new(),
        }
    }

    /// Takes a look at the server: two in a row give figures, and one that failed says why there are none.
    pub(super) fn take(&mut self, look: anyhow::Result<Sample>) {
        let before = self.before.take();
        self.figures = None;
        self.problem = None;
        match look {
            Ok(sample) => {
                let figures = before.map(|before| Figures::between(&before, &sample));
                if let Some(figures) = &figures {
                    push(&mut self.requests, figures.requests_per_second);
                    push(&mut self.tokens, figures.tokens_per_second);
                }
                self.figures = figures;
                self.before = Some(sample);
            }
            Err(error) => self.problem = Some(format!("{error:#}")),
        }
    }

    /// Draws all of it.
    pub(super) fn draw(&self, frame: &mut Frame<'_>) {
        let n_models = self
            .figures
            .as_ref()
            .map_or(0, |figures| figures.models.len());
        let models = u16::try_from(n_models)
            .unwrap_or(u16::MAX)
            .saturating_add(3);
        let rows = [
            Constraint::Length(13),
            Constraint::Max(models),
            Constraint::Min(3),
            Constraint::Length(1),
        ];
        let [figures, models, charts, help] = Layout::vertical(rows).areas(frame.area());
        self.draw_figures(frame, figures);
        self.draw_models(frame, models);
        let [requests, tokens] =
            Layout::horizontal([Constraint::Fill(1), Constraint::Fill(1)]).areas(charts);
        draw_chart(frame, requests, " requests/s ", &self.requests);
        draw_chart(frame, tokens, " tokens/s ", &self.tokens);
        frame.render_widget(Line::from(" q: quit").dim(), help);
    }

    fn draw_figures(&self, frame: &mut Frame<'_>, area: Rect) {
        let block = Block::bordered().title(self.title.as_str().bold());
        let text = match (&self.problem, &self.figures) {
            (Some(problem), _) => vec![Line::from(problem.as_str().red())],
            (None, None) => vec![Line::from("the second look gives figures")],
            (None, Some(figures)) => {
                let lines = named(figures).into_iter();
                let line = |(name, figure)| {
                    Line::from(vec![
                        Span::from(format!("{name:<18}")).dim(),
                        Span::from(figure),
                    ])
                };
                lines.map(line).collect()
            }
        };
        frame.render_widget(Paragraph::new(text).block(block), area);
    }

    fn draw_models(&self, frame: &mut Frame<'_>, area: Rect) {
        let models = self.figures.iter().flat_map(|figures| &figures.models);
        let rows = models.map(|model| {
            let color = match model.state.as_str() {
                "ready" => Color::Green,
                "failed" | "down" => Color::Red,
                _ => Color::Yellow,
            };
            Row::new(cells(model)).style(Style::new().fg(color))
        });
        let widths = [
            Constraint::Fill(2),
            Constraint::Length(10),
            Constraint::Fill(2),
            Constraint::Length(9),
            Constraint::Length(8),
            Constraint::Length(7),
        ];
        let table = Table::new(rows, widths)
            .header(Row::new(COLUMNS).dim())
            .block(Block::bordered().title(" models "));
        frame.render_widget(table, area);
    }
}

/// The latest points, as many as there is room for, the last one at the right.
fn draw_chart(frame: &mut Frame<'_>, area: Rect, title: &str, points: &VecDeque<f64>) {
    let block = Block::bordered().title(title);
    let room = usize::from(block.inner(area).width);
    let latest = points.iter().skip(points.len().saturating_sub(room));
    // A chart has whole numbers: its largest one is 1000.
    let largest = latest.clone().copied().fold(f64::MIN_POSITIVE, f64::max);
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between 0 and 1000"
    )]
    let data: Vec<u64> = latest
        .map(|point| (1000.0 * point / largest) as u64)
        .collect();
    frame.render_widget(Sparkline::default().data(data).max(1000).block(block), area);
}

fn push(points: &mut VecDeque<f64>, point: f64) {
    if points.len() == MOST_POINTS {
        points.pop_front();
    }
    points.push_back(point);
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use anyhow::anyhow;
    use embedgate_metrics::{Metrics, States};
    use ratatui::{Terminal, backend::TestBackend};

    use super::*;

    fn drawn(screen: &Screen, width: u16, height: u16) -> String {
        let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
        terminal.draw(|frame| screen.draw(frame)).unwrap();
        terminal.backend().to_string()
    }

    /// Looks at a server that answers ten requests a second, one after another.
    fn looks() -> impl Iterator<Item = anyhow::Result<Sample>> {
        let (metrics, begun) = (Metrics::new(), Instant::now());
        let states = States {
            server: "ready".into(),
            models: vec![("bge-m3".into(), "loading".into())],
        };
        (0..).map(move |i| {
            for _ in 0..10 {
                metrics.request("/v1/embeddings", 200, Duration::from_millis(3), None);
            }
            let at = begun + Duration::from_secs(i);
            Ok(Sample::new(&metrics.text(), states.clone(), at))
        })
    }

    #[test]
    fn figures_models_and_problems_are_seen() {
        let mut screen = Screen::new("127.0.0.1:9100", Duration::from_secs(2));
        let mut looks = looks();
        screen.take(looks.next().unwrap());
        assert!(drawn(&screen, 100, 30).contains("the second look gives figures"));
        screen.take(looks.next().unwrap());
        let seen = drawn(&screen, 100, 30);
        let words = [
            "127.0.0.1:9100, every 2s",
            "requests/s        10",
            "bge-m3",
            "loading",
            "q: quit",
        ];
        for words in words {
            assert!(seen.contains(words), "{words} is not in\n{seen}");
        }
        // Nothing old stands beside a problem, and no problem beside what is new.
        screen.take(Err(anyhow!("it cannot be reached")));
        let seen = drawn(&screen, 100, 30);
        assert!(
            seen.contains("it cannot be reached") && !seen.contains("bge-m3"),
            "{seen}"
        );
        screen.take(looks.next().unwrap());
        assert!(drawn(&screen, 100, 30).contains("the second look gives figures"));
    }

    #[test]
    fn a_small_terminal_shows_what_it_has_room_for() {
        let mut screen = Screen::new("a", Duration::from_secs(2));
        for look in looks().take(3) {
            screen.take(look);
        }
        for (width, height) in [(1, 1), (20, 5), (40, 10), (300, 100)] {
            drawn(&screen, width, height);
        }
    }
}
