//! Cuts long texts into slices where the tokenizer ends a word, so that the slices have the tokens of the whole.

use tokenizers::{ModelWrapper, NormalizerWrapper, PreTokenizerWrapper, Tokenizer};

/// A longer word is cut wherever it is: its tokens take over 100 bytes each while they are made.
const LONGEST_WORD: usize = 1 << 20;

/// The places where a tokenizer ends a word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Slicing {
    /// In front of the first of white space.
    WhiteSpace,
    /// As BERT does: around punctuation too, and around Chinese characters where `split_chinese` is set. A word of more than
    /// so many characters is one unknown token, however long it is.
    Bert {
        split_chinese: bool,
        most_chars: usize,
    },
}

impl Slicing {
    pub(super) fn of(tokenizer: &Tokenizer) -> Self {
        match (tokenizer.get_model(), tokenizer.get_pre_tokenizer()) {
            (ModelWrapper::WordPiece(model), Some(PreTokenizerWrapper::BertPreTokenizer(_))) => {
                Self::Bert {
                    split_chinese: matches!(
                        tokenizer.get_normalizer(),
                        Some(NormalizerWrapper::BertNormalizer(n)) if n.handle_chinese_chars
                    ),
                    most_chars: model.max_input_chars_per_word,
                }
            }
            _ => Self::WhiteSpace,
        }
    }

    /// Splits off the first slice: of so many bytes or fewer, up to the end of a word; of more where the first word is longer.
    /// Of a word that is one unknown token so much is kept that it stays one.
    pub(super) fn split(self, text: &str, bytes: usize) -> (&str, &str) {
        if text.len() <= bytes {
            return (text, "");
        }
        // With the character behind it.
        let near = &text[..text.ceil_char_boundary(text.floor_char_boundary(bytes) + 1)];
        if let Some((at, _)) = pairs(near).rev().find(|(_, pair)| self.is_end(*pair)) {
            return text.split_at(at);
        }
        let most = text.floor_char_boundary(LONGEST_WORD);
        if let Some((at, _)) = pairs(&text[..most]).find(|(_, pair)| self.is_end(*pair)) {
            return text.split_at(at);
        }
        if text.len() <= LONGEST_WORD {
            return (text, "");
        }
        let word = text.bytes().position(|byte| !byte.is_ascii_alphanumeric());
        let word = word.unwrap_or(text.len());
        match self {
            // It ends there, or goes on with more characters.
            Self::Bert { most_chars, .. } if word > most => {
                let end = pairs(&text[word - 1..]).find(|(_, pair)| self.is_end(*pair));
                let end = end.map_or(text.len(), |(at, _)| word - 1 + at);
                (
                    &text[..most.min(most_chars.saturating_add(1))],
                    &text[end..],
                )
            }
            _ => text.split_at(most),
        }
    }

    /// Splits off the last slice in the same way: what is before it, and the slice.
    pub(super) fn split_end(self, text: &str, bytes: usize) -> (&str, &str) {
        if text.len() <= bytes {
            return ("", text);
        }
        let from = |bytes: usize| text.ceil_char_boundary(text.len().saturating_sub(bytes));
        // With the character before it.
        let near = from(bytes + 4);
        if let Some((at, _)) = pairs(&text[near..]).find(|(_, pair)| self.is_end(*pair)) {
            return text.split_at(near + at);
        }
        let far = from(LONGEST_WORD);
        if let Some((at, _)) = pairs(&text[far..])
            .rev()
            .find(|(_, pair)| self.is_end(*pair))
        {
            return text.split_at(far + at);
        }
        if text.len() <= LONGEST_WORD {
            return ("", text);
        }
        let is_in_word = |byte: &u8| byte.is_ascii_alphanumeric();
        let word = text.bytes().rev().take_while(is_in_word).count();
        match self {
            // It begins there, or goes on with more characters.
            Self::Bert { most_chars, .. } if word > text.len() - far => {
                let begin = pairs(&text[..text.len() - word + 1]);
                let begin = begin.rev().find(|(_, pair)| self.is_end(*pair));
                let kept = (text.len() - far).min(most_chars.saturating_add(1));
                (
                    &text[..begin.map_or(0, |(at, _)| at)],
                    &text[text.len() - kept..],
                )
            }
            _ => text.split_at(far),
        }
    }

    /// Returns true when a word ends between two characters.
    fn is_end(self, [before, after]: [char; 2]) -> bool {
        let around = |is: fn(char) -> bool| is(before) || is(after);
        // Tokenizers drop most control characters, white space or not, and join what is around them.
        let is_space = |c: char| c.is_whitespace() && (!c.is_control() || "\t\n\r".contains(c));
        // A run of white space may be one token.
        let is_space = is_space(after) && !before.is_whitespace();
        match self {
            Self::WhiteSpace => is_space,
            Self::Bert { split_chinese, .. } => {
                is_space || around(is_punctuation) || (split_chinese && around(is_chinese))
            }
        }
    }
}

/// Neighbours in a text, and where the second of them begins.
fn pairs(text: &str) -> impl DoubleEndedIterator<Item = (usize, [char; 2])> {
    let second = text.char_indices();
    second.filter_map(|(at, after)| Some((at, [text[..at].chars().next_back()?, after])))
}

/// Some of what BERT takes for punctuation: enough of it to find the end of a word.
fn is_punctuation(c: char) -> bool {
    c.is_ascii_punctuation() || "。，、！？；：".contains(c)
}

/// Most of the characters that BERT takes for Chinese.
fn is_chinese(c: char) -> bool {
    ('\u{4e00}'..='\u{9fff}').contains(&c)
}

#[cfg(test)]
mod tests {
    use super::*;

    const BERT: Slicing = Slicing::Bert {
        split_chinese: true,
        most_chars: 100,
    };

    fn slices(slicing: Slicing, text: &str, bytes: usize) -> Vec<&str> {
        let (mut rest, mut slices) = (text, Vec::new());
        while !rest.is_empty() {
            let (slice, after) = slicing.split(rest, bytes);
            assert!(!slice.is_empty());
            slices.push(slice);
            rest = after;
        }
        slices
    }

    /// From the end; in the order of the text.
    fn slices_from_the_end(slicing: Slicing, text: &str, bytes: usize) -> Vec<&str> {
        let (mut rest, mut slices) = (text, Vec::new());
        while !rest.is_empty() {
            let (before, slice) = slicing.split_end(rest, bytes);
            assert!(!slice.is_empty());
            slices.insert(0, slice);
            rest = before;
        }
        slices
    }

    #[test]
    fn slices_lose_nothing_and_end_where_words_do() {
        for (text, by_space, of_bert) in [
            (
                "ab cd ef",
                &["ab", " cd", " ef"][..],
                &["ab", " cd", " ef"][..],
            ),
            (
                "no-white-space",
                &["no-white-space"],
                &["no-", "white", "-", "space"],
            ),
            ("漢字漢字", &["漢字漢字"], &["漢", "字", "漢", "字"]),
            (
                "ab\u{85}cd ef",
                &["ab\u{85}cd", " ef"],
                &["ab\u{85}cd", " ef"],
            ),
            ("漢a漢a", &["漢a漢a"], &["漢a", "漢a"]),
            (" a", &[" a"], &[" a"]),
            ("", &[], &[]),
        ] {
            assert_eq!(slices(Slicing::WhiteSpace, text, 4), by_space);
            assert_eq!(slices(BERT, text, 4), of_bert);
            for slicing in [Slicing::WhiteSpace, BERT] {
                let from_the_end = slices_from_the_end(slicing, text, 4);
                assert_eq!(from_the_end.concat(), text);
                for pair in from_the_end.windows(2) {
                    let around = [pair[0].chars().next_back(), pair[1].chars().next()];
                    assert!(slicing.is_end(around.map(Option::unwrap)), "{pair:?}");
                }
            }
        }
    }

    #[test]
    fn a_word_that_is_one_unknown_token_stays_one() {
        let word = "a".repeat(3 << 20);
        let text = format!("{word} b");
        assert_eq!(slices(BERT, &text, 64 << 10), [&"a".repeat(101), " b"]);
        assert_eq!(
            slices_from_the_end(BERT, &format!("b {word}"), 64 << 10),
            ["b", &"a".repeat(101)]
        );
        let parts = slices(Slicing::WhiteSpace, &text, 64 << 10);
        assert_eq!(parts.concat(), text);
        assert_eq!(parts.len(), 4, "cut at each MiB");
        let parts = slices_from_the_end(Slicing::WhiteSpace, &text, 64 << 10);
        assert_eq!(parts.concat(), text);
        assert_eq!(parts.len(), 4, "cut at each MiB");
    }
}
