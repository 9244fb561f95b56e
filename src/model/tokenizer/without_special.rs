//! The tokens of a text of any length without special ones: read slice by slice, and only those kept that have room.

use embedgate_request::{MOST_COUNTED, Side};
use tokenizers::{Encoding, TruncationDirection};

use super::TextTokenizer;

impl TextTokenizer {
    /// The tokens of a text without special ones, cut to `room`; and how many there were, counted to one more than
    /// [`MOST_COUNTED`]. What is beyond that is not read: it could not change the tokens that stay.
    pub(super) fn encode_without_special(
        &self,
        text: &str,
        room: usize,
        side: Side,
        given_up: impl Fn() -> bool,
    ) -> Result<(Encoding, usize), String> {
        let (mut kept, mut n_tokens, mut rest) = (None::<Encoding>, 0, text);
        loop {
            let (slice, left) = self.slice(rest, side);
            let more = self.inner.encode_fast(slice, false);
            let mut more = more.map_err(|e| e.to_string())?;
            n_tokens += more.len();
            // What cannot stay is only counted: a token takes over 100 bytes while it is made.
            kept = Some(match (kept, side) {
                (Some(kept), _) if kept.len() >= room => kept,
                (Some(mut kept), Side::Right) => {
                    kept.merge_with(more, false);
                    kept
                }
                (Some(kept), Side::Left) => {
                    more.merge_with(kept, false);
                    more
                }
                (None, _) => more,
            });
            rest = left;
            let is_full = kept.as_ref().is_some_and(|kept| kept.len() >= room);
            if rest.is_empty() || (is_full && n_tokens > MOST_COUNTED) {
                break;
            }
            if given_up() {
                return Err("the caller left".into());
            }
        }
        let mut kept = kept.unwrap_or_default();
        cut(&mut kept, room, side);
        Ok((kept, n_tokens.min(MOST_COUNTED.max(room) + 1)))
    }

    /// The slice of a text at the side that stays, and the rest.
    pub(super) fn slice<'a>(&self, text: &'a str, side: Side) -> (&'a str, &'a str) {
        match side {
            Side::Right => self.slicing.split(text, self.slice_bytes()),
            Side::Left => {
                let (before, slice) = self.slicing.split_end(text, self.slice_bytes());
                (slice, before)
            }
        }
    }

    /// Long texts go through the tokenizer in slices of so many bytes. All that fits into a sequence is in the first one
    /// unless its tokens are longer than 16 bytes on average, which is four times what texts have.
    pub(super) fn slice_bytes(&self) -> usize {
        (self.max_tokens * 16).max(64 << 10)
    }
}

/// Cuts an encoding to so many tokens, and forgets the rest.
fn cut(encoding: &mut Encoding, room: usize, side: Side) {
    if encoding.len() > room {
        let direction = match side {
            Side::Left => TruncationDirection::Left,
            Side::Right => TruncationDirection::Right,
        };
        encoding.truncate(room, 0, direction);
        drop(encoding.take_overflowing());
    }
}
