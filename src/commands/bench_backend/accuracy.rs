//! The similarity of each precision's vectors to those of f32, and the share of searches with the same result.

use std::path::Path;

use anyhow::Context;
use embedgate_core::{Backend, Head, TokenBatch};
use embedgate_tools::table::Table;

use super::{Failure, engines::MeasuredBackend};
use crate::model::tokenizer::TextTokenizer;

/// One a line; languages are parted by empty lines.
const SENTENCES: &str = include_str!("sentences.txt");

/// Sentences of twelve languages and as many subjects, or the lines of a file.
pub(super) fn texts(file: Option<&Path>) -> anyhow::Result<Vec<String>> {
    let own = file.map(|file| {
        std::fs::read_to_string(file).with_context(|| format!("{} cannot be read", file.display()))
    });
    let lines = own.transpose()?;
    let lines = lines.as_deref().unwrap_or(SENTENCES).lines();
    Ok(lines.filter(|l| !l.is_empty()).map(str::to_owned).collect())
}

/// Compares the dense vectors of all engines with those of the first.
///
/// Each of the first `n_queries` texts looks for its nearest among the others; none given, every text looks among all others.
pub(super) fn compare(
    engines: &mut [MeasuredBackend],
    tokenizer: &TextTokenizer,
    texts: &[String],
    n_queries: Option<usize>,
) -> Result<Table, Failure> {
    let mut sequences = Vec::new();
    for text in texts {
        sequences.push(tokenizer.encode(text).map_err(anyhow::Error::msg)?.ids);
    }
    let mut vectors = Vec::new();
    for engine in &mut *engines {
        vectors.push(embed(engine.backend.as_mut(), &sequences)?);
    }
    let mut table = Table::new(["", "cosine, mean", "least", "same nearest text"]);
    for (engine, others) in engines.iter().zip(&vectors).skip(1) {
        let cosines: Vec<f64> = vectors[0]
            .iter()
            .zip(others)
            .map(|(a, b)| dot(a, b))
            .collect();
        let mean = cosines.iter().sum::<f64>() / cosines.len() as f64;
        let least = cosines.iter().copied().fold(f64::INFINITY, f64::min);
        let same = agreement(&vectors[0], others, n_queries);
        table.row([
            engine.name.clone(),
            format!("{mean:.6}"),
            format!("{least:.6}"),
            format!("{:.1} %", same * 100.0),
        ]);
    }
    Ok(table)
}

/// Dense vectors of length 1.
fn embed(backend: &mut dyn Backend, sequences: &[Vec<u32>]) -> Result<Vec<Vec<f64>>, Failure> {
    let outputs = backend.info().outputs.main();
    let mut all = Vec::new();
    for sequences in sequences.chunks(4) {
        let batch: TokenBatch = sequences.iter().map(Vec::as_slice).collect();
        let results = backend
            .embed(&batch, outputs)
            .context("the backend failed")?;
        let dense = results.vectors(Head::Dense);
        let dense = dense.context("the model gives no dense vectors")?;
        for i in 0..sequences.len() {
            let row: Vec<f64> = dense.row(i).iter().map(|x| f64::from(*x)).collect();
            let length = dot(&row, &row).sqrt();
            all.push(row.into_iter().map(|x| x / length).collect());
        }
    }
    Ok(all)
}

/// The share of queries whose nearest text is the same.
fn agreement(a: &[Vec<f64>], b: &[Vec<f64>], n_queries: Option<usize>) -> f64 {
    let n = n_queries.unwrap_or(a.len());
    let nearest = |all: &[Vec<f64>], i: usize| {
        let others = (n_queries.unwrap_or(0)..all.len()).filter(|j| *j != i);
        others.max_by(|j, k| dot(&all[i], &all[*j]).total_cmp(&dot(&all[i], &all[*k])))
    };
    let same = (0..n).filter(|i| nearest(a, *i) == nearest(b, *i)).count();
    same as f64 / n as f64
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn built_in_texts_are_all_different() {
        let all = texts(None).unwrap();
        let different: std::collections::HashSet<&String> = all.iter().collect();
        assert_eq!((all.len(), different.len()), (144, 144));
    }

    #[test]
    fn queries_look_among_the_texts_that_are_none() {
        let a = vec![
            vec![1.0, 0.0],
            vec![0.9, 0.1],
            vec![0.0, 1.0],
            vec![0.6, 0.8],
        ];
        let mut b = a.clone();
        assert_eq!(agreement(&a, &b, Some(2)), 1.0);
        b.swap(2, 3);
        assert_eq!(agreement(&a, &b, Some(2)), 0.0);
        // Among all others, the first two are each other's nearest, and so are the last two.
        assert_eq!(agreement(&a, &b, None), 1.0);
    }
}
