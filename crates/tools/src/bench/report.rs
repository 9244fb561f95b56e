//! The medians of all rounds, as a table for people and as JSON for programs.

pub(super) mod figures;
mod table;

use serde::Serialize;

use self::figures::{Figures, median};
use super::{BenchConfig, Load, Measured, Target};

/// The results of a measurement.
#[derive(Clone, Debug, Serialize)]
pub struct Report {
    /// One a load and target, in the order of the loads.
    pub rows: Vec<Row>,
    #[serde(skip)]
    seen: Vec<Vec<Figures>>,
}

/// One target under one load: medians of all rounds.
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// The target's name.
    pub target: String,
    /// The load, in words.
    pub load: String,
    #[serde(skip)]
    key: Load,
    /// The figures.
    #[serde(flatten)]
    pub figures: Figures,
    /// Requests a second in proportion to the first target's, the median of the rounds' ratios.
    pub ratio: f64,
}

impl Report {
    /// A report without figures.
    pub(super) fn new(config: &BenchConfig) -> Self {
        let pairs = config
            .loads
            .iter()
            .flat_map(|load| config.targets.iter().map(move |target| (load, target)));
        let rows: Vec<Row> = pairs
            .map(|(load, target)| Row {
                target: target.name.clone(),
                load: load.to_string(),
                key: *load,
                figures: Figures::default(),
                ratio: 1.0,
            })
            .collect();
        Self {
            seen: vec![Vec::new(); rows.len()],
            rows,
        }
    }

    /// Adds the figures of one round.
    pub(super) fn add(
        &mut self,
        target: &Target,
        load: Load,
        measured: &Measured,
        background: Option<&Measured>,
    ) {
        let is_it = |row: &Row| row.target == target.name && row.key == load;
        let Some(at) = self.rows.iter().position(is_it) else {
            return;
        };
        self.seen[at].push(Figures::new(measured, background));
        self.rows[at].figures = Figures::median(&self.seen[at]);
        // The first target stands first under each load, and was measured first in this round.
        let first = self
            .rows
            .iter()
            .position(|row| row.key == load)
            .unwrap_or(at);
        let ratios = self.seen[at].iter().zip(&self.seen[first]);
        let ratios = ratios.map(|(own, first)| own.requests_per_second / first.requests_per_second);
        self.rows[at].ratio = median(ratios.filter(|ratio| ratio.is_finite()).collect());
    }

    /// The rows of one target, in the order of the loads.
    pub(super) fn of<'a>(&'a self, target: &'a str) -> impl Iterator<Item = &'a Row> {
        self.rows.iter().filter(move |row| row.target == target)
    }
}
