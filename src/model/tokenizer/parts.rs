//! Cuts a text where its tokens meet, so that each part is a text that fits into the model.

use std::ops::Range;

use embedgate_request::{MOST_COUNTED, Side};

use super::{TextTokenizer, unpanicked};

/// A part of a text may have some tokens more than the text has there: a word that is cut is other tokens.
const SLACK: usize = 4;

/// The way in which a text is cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Cutting {
    /// Only so many tokens of it count; the rest is left out, on one side.
    pub max_tokens: Option<usize>,
    /// The side that loses tokens.
    pub side: Side,
    /// The tokens that one window has room for. The text that counts goes in windows of this size; each begins with the
    /// last quarter of the one before. None: in one piece.
    pub room: Option<usize>,
    /// More windows than these are of no use: whoever asks for more is refused.
    pub max_windows: usize,
}

impl Cutting {
    /// Tokens that can matter: those behind them are read only to be counted.
    fn most_tokens(self) -> usize {
        let of_windows = self.room.map(|room| room.saturating_mul(self.max_windows));
        let most = self.max_tokens.unwrap_or(usize::MAX);
        most.min(of_windows.unwrap_or(usize::MAX))
    }
}

/// A text in parts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Parts {
    /// The parts, in bytes and in their order; at least one.
    pub ranges: Vec<Range<usize>>,
    /// Tokens of the whole text. More than [`MOST_COUNTED`] are not counted.
    pub n_tokens: usize,
    /// Tokens that count.
    pub n_counted: usize,
}

impl TextTokenizer {
    /// Counts the tokens that a text may have behind a prompt.
    ///
    /// # Errors
    /// The tokenizer's own sentence.
    pub fn room_behind(&self, prompt: &str) -> Result<usize, String> {
        // Where prompt and text meet there may be other tokens than each has alone.
        let n_prompt = match self.count(prompt, || false)? {
            0 => 0,
            n => n + SLACK,
        };
        Ok(self.max_tokens.saturating_sub(self.n_added + n_prompt))
    }

    /// The most places of tokens that are held while a text of so many bytes is cut: at worst each byte is a token.
    #[must_use]
    pub(crate) fn most_places(&self, bytes: usize, cutting: Cutting) -> usize {
        let most = cutting.most_tokens().max(MOST_COUNTED);
        bytes.min(most.saturating_add(self.slice_bytes()))
    }

    pub(super) fn count(&self, text: &str, given_up: impl Fn() -> bool) -> Result<usize, String> {
        unpanicked(|| {
            Ok(self
                .encode_without_special(text, 0, Side::Right, given_up)?
                .1)
        })?
    }

    /// Cuts a text. One that need not be cut is one part, from end to end.
    ///
    /// # Errors
    /// The tokenizer's own sentence.
    pub(super) fn parts_unless(
        &self,
        text: &str,
        cutting: Cutting,
        given_up: impl Fn() -> bool,
    ) -> Result<Parts, String> {
        let places = unpanicked(|| self.places(text, cutting, given_up))??;
        let counted = counted(&places, cutting);
        let is_whole = counted.len() == places.len();
        let mut ranges = match cutting.room {
            // As many tokens as it was counted to have.
            Some(room) if !is_whole || counted.len() > room => {
                windows(counted, room.saturating_sub(SLACK).max(1))
            }
            _ if is_whole => std::iter::once(0..text.len()).collect(),
            _ => windows(counted, usize::MAX),
        };
        for range in &mut ranges {
            *range = text.floor_char_boundary(range.start)..text.ceil_char_boundary(range.end);
        }
        Ok(Parts {
            ranges,
            n_tokens: places.len(),
            n_counted: counted.len(),
        })
    }

    /// Finds the begin and the end of each token of a text, in bytes. When a text has more than [`MOST_COUNTED`]
    /// tokens, it reads only as many as can matter, on the side that stays.
    fn places(
        &self,
        text: &str,
        cutting: Cutting,
        given_up: impl Fn() -> bool,
    ) -> Result<Vec<Range<usize>>, String> {
        let most = cutting.most_tokens().max(MOST_COUNTED);
        let (mut all, mut rest) = (Vec::new(), 0..text.len());
        while !rest.is_empty() && all.len() <= most {
            if given_up() {
                return Err("the caller left".into());
            }
            let (slice, left) = self.slice(&text[rest.clone()], cutting.side);
            let (start, end) = (rest.start, rest.end);
            let slice_start = match cutting.side {
                Side::Right => start,
                Side::Left => end - slice.len(),
            };
            rest = match cutting.side {
                Side::Right => end - left.len()..end,
                Side::Left => start..start + left.len(),
            };
            let encoding = self.inner.encode(slice, false).map_err(|e| e.to_string())?;
            let offsets = encoding.get_offsets().iter();
            let places = offsets.map(|(start, end)| slice_start + start..slice_start + end);
            match cutting.side {
                Side::Right => all.extend(places),
                Side::Left => all.extend(places.rev()),
            }
        }
        if cutting.side == Side::Left {
            all.reverse();
        }
        Ok(all)
    }
}

/// The tokens that count.
fn counted(places: &[Range<usize>], cutting: Cutting) -> &[Range<usize>] {
    let (n, most) = (places.len(), cutting.max_tokens.unwrap_or(usize::MAX));
    match cutting.side {
        Side::Right => &places[..n.min(most)],
        Side::Left => &places[n.saturating_sub(most)..],
    }
}

/// Windows of at most so many tokens, at least 1, in bytes.
fn windows(counted: &[Range<usize>], window: usize) -> Vec<Range<usize>> {
    let between = |tokens: &[Range<usize>]| match tokens {
        [] => 0..0,
        [only] => only.clone(),
        [first, .., last] => first.start..last.end,
    };
    if counted.len() <= window {
        return vec![between(counted)];
    }
    // The last one is as long as the others: it begins earlier.
    let last = counted.len() - window;
    let step = window - window / 4;
    let starts = (0..last).step_by(step).chain([last]);
    starts
        .map(|start| between(&counted[start..start + window]))
        .collect()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn tiny() -> TextTokenizer {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tiny-bge-m3");
        TextTokenizer::load(&folder, 32, &embedgate_core::TokenizerSettings::default()).unwrap()
    }

    fn cut(text: &str, cutting: Cutting) -> Vec<&str> {
        let parts = tiny().parts_unless(text, cutting, || false).unwrap();
        let ranges = parts.ranges.into_iter();
        ranges.map(|range| &text[range]).collect()
    }

    const WHOLE: Cutting = Cutting {
        max_tokens: None,
        side: Side::Right,
        room: None,
        max_windows: usize::MAX,
    };

    #[test]
    fn windows_cover_all_tokens_and_overlap_by_a_quarter() {
        let places: Vec<Range<usize>> = (0..10).map(|i| i * 2..i * 2 + 2).collect();
        let windows = |window, n: usize| windows(&places[..n], window);
        assert_eq!(windows(4, 10), [0..8, 6..14, 12..20]);
        assert_eq!(windows(4, 8), [0..8, 6..14, 8..16], "the last is full too");
        assert_eq!(windows(4, 4), vec![0..8; 1]);
        assert_eq!(windows(4, 0), vec![0..0; 1], "an empty text is one part");
        assert_eq!(windows(1, 3), [0..2, 2..4, 4..6]);
    }

    #[test]
    fn only_the_tokens_that_count_are_kept_on_the_side_that_is_asked_for() {
        let text = "word and 向量 检索 word";
        let n = tiny().count(text, || false).unwrap();
        let most = |max_tokens, side| Cutting {
            max_tokens: Some(max_tokens),
            side,
            ..WHOLE
        };
        assert_eq!(cut(text, most(n, Side::Right)), [text]);
        let (left, right) = (
            cut(text, most(n - 1, Side::Left)),
            cut(text, most(n - 1, Side::Right)),
        );
        assert!(text.starts_with(right[0]) && right[0].len() < text.len());
        assert!(text.ends_with(left[0]) && left[0].len() < text.len());
    }

    #[test]
    fn a_text_that_just_fits_is_one_part_and_one_that_just_does_not_is_two() {
        let text = " word and 向量 检索 word and more of it \n";
        let n = tiny().count(text, || false).unwrap();
        let within = |room| Cutting {
            room: Some(room),
            ..WHOLE
        };
        assert_eq!(cut(text, within(n)), [text]);
        assert_eq!(cut(text, within(n - 1)).len(), 2);
        let parts = tiny().parts_unless(text, within(n - 1), || false).unwrap();
        assert_eq!((parts.n_tokens, parts.n_counted), (n, n));
    }

    #[test]
    fn of_a_text_of_very_many_tokens_only_those_are_read_that_can_matter() {
        let (tokenizer, word) = (tiny(), "word ");
        // Who reads a slice of it is told to give up after a few of them: the text has 40.
        let text = word.repeat(tokenizer.slice_bytes() / word.len() * 40);
        let cut = |cutting: Cutting| {
            let n_slices = std::cell::Cell::new(0);
            let parts = tokenizer.parts_unless(&text, cutting, || {
                n_slices.set(n_slices.get() + 1);
                false
            });
            (parts.unwrap(), n_slices.get())
        };
        for side in [Side::Left, Side::Right] {
            let most = Cutting {
                max_tokens: Some(20),
                side,
                ..WHOLE
            };
            let (parts, n_slices) = cut(most);
            assert!(
                parts.n_tokens > MOST_COUNTED && n_slices < 20,
                "{n_slices} slices"
            );
            assert_eq!(parts.n_counted, 20);
            let kept = &text[parts.ranges[0].clone()];
            assert_eq!(tokenizer.count(kept, || false).unwrap(), 20, "{kept:?}");
            match side {
                Side::Right => assert!(text.starts_with(kept)),
                Side::Left => assert!(text.trim_end().ends_with(kept.trim_end())),
            }
        }
        let windows = Cutting {
            room: Some(32),
            max_windows: 5,
            ..WHOLE
        };
        let (parts, n_slices) = cut(windows);
        assert!(parts.ranges.len() > 5 && n_slices < 20, "{n_slices} slices");
    }

    #[test]
    fn parts_of_a_text_in_slices_are_those_of_the_whole() {
        let tokenizer = tiny();
        let text = "longer-than-most, 😀 检索 ".repeat(5000);
        assert!(text.len() > tokenizer.slice_bytes() * 2);
        let cutting = Cutting {
            room: Some(32),
            ..WHOLE
        };
        let parts = tokenizer.parts_unless(&text, cutting, || false).unwrap();
        let parts = parts.ranges;
        assert_eq!(
            (parts[0].start, parts.last().unwrap().end),
            (0, text.trim_end().len())
        );
        for (a, b) in parts.iter().zip(&parts[1..]) {
            assert!(a.start < b.start && b.start <= a.end && a.end < b.end);
        }
        for part in parts {
            let n = tokenizer.encode(&text[part]).unwrap().n_tokens_full;
            assert!(n <= 32, "{n} tokens fit with room for what a cut word adds");
        }
    }
}
