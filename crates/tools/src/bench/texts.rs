//! The texts of a load: made from random words, or lines of a file; new ones, or some of a hot set again.

use std::{path::PathBuf, str::FromStr, sync::Arc};

use anyhow::{Context, bail};

/// The source of texts.
#[derive(Clone, Debug)]
pub struct TextsConfig {
    /// Lines of this file instead of random words.
    pub file: Option<PathBuf>,
    /// Words in a text.
    pub words: Lengths,
    /// Share of the texts that are of the hot set, 0 to 1.
    pub hit_ratio: f64,
    /// Texts of the hot set, which every target is asked for before the measurement.
    pub hot: usize,
    /// Makes the texts; another seed makes others.
    pub seed: u64,
}

/// So many words, or between two numbers: the logarithm of the length is spread evenly, as lengths in the wild are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Lengths {
    shortest: usize,
    longest: usize,
}

impl FromStr for Lengths {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected = || format!("{text:?} is no length: write it as 100 or 10..400");
        let number = |text: &str| text.trim().parse::<usize>().map_err(|_| expected());
        let (shortest, longest) = match text.split_once("..") {
            Some((from, to)) => (number(from)?, number(to)?),
            None => (number(text)?, number(text)?),
        };
        if shortest == 0 || longest < shortest || longest > 100_000 {
            return Err(expected());
        }
        Ok(Self { shortest, longest })
    }
}

impl Lengths {
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "between two small positive numbers"
    )]
    fn draw(self, random: &mut fastrand::Rng) -> usize {
        let (from, to) = ((self.shortest as f64).ln(), (self.longest as f64).ln());
        let length = (from + random.f64() * (to - from)).exp().round() as usize;
        length.clamp(self.shortest, self.longest)
    }
}

/// A source of texts. Cheap to clone; each user draws with a generator of its own.
#[derive(Clone)]
pub(super) struct Texts {
    lines: Option<Arc<[String]>>,
    words: Lengths,
    hit_ratio: f64,
    hot: Arc<[String]>,
    seed: u64,
}

impl Texts {
    /// Reads or makes what texts are drawn from.
    pub(super) fn new(config: &TextsConfig) -> anyhow::Result<Self> {
        let lines = match &config.file {
            None => None,
            Some(file) => {
                let text = std::fs::read_to_string(file)
                    .with_context(|| format!("{} cannot be read", file.display()))?;
                let lines: Vec<String> =
                    text.lines().filter(|l| !l.is_empty()).map(quoted).collect();
                if lines.is_empty() {
                    bail!("{} has no line with text", file.display());
                }
                Some(lines.into())
            }
        };
        let mut texts = Self {
            lines,
            words: config.words,
            hit_ratio: config.hit_ratio,
            hot: Arc::default(),
            seed: config.seed,
        };
        let mut random = fastrand::Rng::with_seed(config.seed ^ 0x5eed);
        texts.hot = (0..config.hot.max(1))
            .map(|_| texts.new_text(&mut random))
            .collect();
        Ok(texts)
    }

    /// A generator of its own for user `i`.
    pub(super) fn random(&self, i: u64) -> fastrand::Rng {
        fastrand::Rng::with_seed(
            self.seed
                .wrapping_mul(0x9e37_79b9_7f4a_7c15)
                .wrapping_add(i),
        )
    }

    /// The hot set as JSON strings; empty when nothing is drawn from it.
    pub(super) fn hot(&self) -> &[String] {
        if self.hit_ratio > 0.0 { &self.hot } else { &[] }
    }

    /// Writes one text as a JSON string.
    pub(super) fn draw(&self, random: &mut fastrand::Rng, out: &mut String) {
        if random.f64() < self.hit_ratio {
            out.push_str(&self.hot[random.usize(..self.hot.len())]);
        } else {
            out.push_str(&self.new_text(random));
        }
    }

    fn new_text(&self, random: &mut fastrand::Rng) -> String {
        if let Some(lines) = &self.lines {
            return lines[random.usize(..lines.len())].clone();
        }
        let mut text = String::from("\"");
        for i in 0..self.words.draw(random) {
            if i > 0 {
                text.push(' ');
            }
            // Two or three syllables: about as many tokens a word as English has.
            for _ in 0..random.usize(1..=2) {
                text.push(letter(random, b"bcdfghklmnprstvw"));
                text.push(letter(random, b"aeiou"));
            }
            text.push(letter(random, b"lmnrst"));
        }
        text.push('"');
        text
    }
}

fn letter(random: &mut fastrand::Rng, of: &[u8]) -> char {
    of[random.usize(..of.len())].into()
}

fn quoted(line: &str) -> String {
    serde_json::Value::from(line).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(words: &str, hit_ratio: f64) -> Texts {
        let config = TextsConfig {
            file: None,
            words: words.parse().unwrap(),
            hit_ratio,
            hot: 10,
            seed: 1,
        };
        Texts::new(&config).unwrap()
    }

    fn draw(texts: &Texts, n: usize) -> Vec<String> {
        let mut random = texts.random(0);
        let one = |_| {
            let mut out = String::new();
            texts.draw(&mut random, &mut out);
            serde_json::from_str(&out).unwrap()
        };
        (0..n).map(one).collect()
    }

    #[test]
    fn lengths_are_within_their_range_and_bad_ones_are_named() {
        let texts = texts("10..50", 0.0);
        for text in draw(&texts, 200) {
            assert!((10..=50).contains(&text.split(' ').count()), "{text}");
        }
        for bad in ["", "0", "5..2", "x", "1..2..3"] {
            let error = bad.parse::<Lengths>().unwrap_err();
            assert!(error.contains(bad) && error.contains("10..400"), "{error}");
        }
    }

    #[test]
    fn the_share_of_the_hot_set_is_as_asked() {
        let texts = texts("5", 0.5);
        let hot: Vec<String> = texts
            .hot()
            .iter()
            .map(|t| serde_json::from_str(t).unwrap())
            .collect();
        let hits = draw(&texts, 2000)
            .iter()
            .filter(|text| hot.contains(text))
            .count();
        assert!((900..1100).contains(&hits), "{hits}");
    }
}
