//! Load on embedding servers, and what they make of it: `embedgate bench`.
//!
//! Closed loop: so many clients, each sends its next request when the last is answered. Open loop: requests are sent at a
//! rate, whether answers come or not, and their time counts from the moment when they were due. Several targets take
//! turns in every round, so that what disturbs the machine disturbs all of them.

mod client;
mod driver;
mod load;
mod measured;
mod plot;
mod report;
mod texts;

use std::{path::PathBuf, time::Duration};

use anyhow::Context;
use embedgate_request::Lane;

pub use self::{
    client::{Connection, Target},
    load::Load,
    measured::Measured,
    report::{Report, figures::median},
    texts::{Lengths, TextsConfig},
};
use self::{driver::Driver, texts::Texts};

/// The configuration of a measurement: its targets, its loads and its requests.
#[derive(Clone, Debug)]
pub struct BenchConfig {
    /// At least one; ratios are to the first.
    pub targets: Vec<Target>,
    /// The loads, which are applied one after another.
    pub loads: Vec<Load>,
    /// Length of each measurement.
    pub duration: Duration,
    /// Load before it that does not count.
    pub warm_up: Duration,
    /// Times that everything is measured; the median counts.
    pub rounds: usize,
    /// The content of a request.
    pub request: RequestConfig,
    /// Clients that send bulk beside what is measured.
    pub background: usize,
    /// The JSON file for the table.
    pub json: Option<PathBuf>,
    /// The SVG file for the plot.
    pub svg: Option<PathBuf>,
}

/// The content of a request.
#[derive(Clone, Debug)]
pub struct RequestConfig {
    /// The model's name.
    pub model: Option<String>,
    /// Texts in each request.
    pub inputs: usize,
    /// The texts.
    pub texts: TextsConfig,
    /// `float` or `base64`.
    pub encoding: String,
    /// Sent as a header.
    pub lane: Option<Lane>,
    /// Sent as `Authorization: Bearer`.
    pub key: Option<String>,
    /// An answer that takes longer counts as an error.
    pub timeout: Duration,
}

/// Texts in a request of the background, as RAGFlow sends them.
const BACKGROUND_INPUTS: usize = 16;

/// So many texts of random words.
#[must_use]
pub fn random_texts(words: Lengths, seed: u64, n: usize) -> Vec<String> {
    let config = TextsConfig {
        file: None,
        words,
        hit_ratio: 0.0,
        hot: 1,
        seed,
    };
    let Ok(texts) = Texts::new(&config) else {
        return Vec::new();
    };
    let mut random = texts.random(0);
    let one = |_| {
        let mut text = String::new();
        texts.draw(&mut random, &mut text);
        text.trim_matches('"').to_owned()
    };
    (0..n).map(one).collect()
}

/// One good answer of the first target.
///
/// # Errors
/// As [`run`].
pub async fn one_answer(config: &BenchConfig) -> anyhow::Result<Vec<u8>> {
    let texts = Texts::new(&config.request.texts)?;
    let target = config.targets.first().context("no target is named")?;
    let answer = Driver::new(target, &config.request, &texts)
        .try_out()
        .await?;
    Ok(answer.to_vec())
}

/// Writes the files that were asked for.
///
/// # Errors
/// When one cannot be written, or there is nothing to draw.
pub fn write(config: &BenchConfig, report: &Report) -> anyhow::Result<()> {
    if let Some(file) = &config.json {
        let json = serde_json::to_string_pretty(report)?;
        std::fs::write(file, json)
            .with_context(|| format!("{} cannot be written", file.display()))?;
    }
    if let Some(file) = &config.svg {
        let names: Vec<String> = config
            .targets
            .iter()
            .map(|target| target.name.clone())
            .collect();
        plot::write(report, &names, file)?;
    }
    Ok(())
}

/// Measures every target under every load.
///
/// # Errors
/// When a target cannot be reached or refuses the first request: the measurement would say nothing.
pub async fn run(config: &BenchConfig) -> anyhow::Result<Report> {
    let texts = Texts::new(&config.request.texts)?;
    let background = RequestConfig {
        inputs: BACKGROUND_INPUTS,
        lane: Some(Lane::Bulk),
        ..config.request.clone()
    };
    let mut drivers = Vec::new();
    for target in &config.targets {
        let driver = Driver::new(target, &config.request, &texts);
        driver.try_out().await?;
        driver.fill_hot().await?;
        drivers.push((driver, Driver::new(target, &background, &texts)));
    }
    let mut report = Report::new(config);
    for round in 0..config.rounds {
        for load in &config.loads {
            for (target, (driver, bulk)) in config.targets.iter().zip(&drivers) {
                tracing::info!(
                    "round {} of {}: {load} on {}",
                    round + 1,
                    config.rounds,
                    target.name
                );
                driver.measure(*load, config.warm_up).await;
                let (measured, beside) = tokio::join!(
                    driver.measure(*load, config.duration),
                    bulk.background(config.background, config.duration),
                );
                report.add(target, *load, &measured, beside.as_ref());
            }
        }
    }
    Ok(report)
}
