//! Steps on characters. Each returns the text itself where it has nothing to do.

use std::borrow::Cow;

use unicode_normalization::{IsNormalized, UnicodeNormalization, is_nfkc_quick};

use crate::Config;

/// Says in one pass over its bytes whether a text is ASCII that no step changes: most English ones.
pub(crate) fn is_plain(text: &str, config: Config) -> bool {
    let mut before = b' ';
    for &byte in text.as_bytes() {
        let changes = match byte {
            0x80.. => true,
            b'<' | b'&' => config.html,
            b' ' => config.whitespace && before == b' ',
            b'\t' | b'\n' | b'\x0b' | b'\x0c' | b'\r' => config.whitespace,
            ..b' ' | 0x7f => config.control,
            _ => false,
        };
        if changes {
            return false;
        }
        before = byte;
    }
    !config.whitespace || before != b' '
}

/// Unicode normalization form KC.
pub(crate) fn nfkc(text: Cow<'_, str>) -> Cow<'_, str> {
    if text.is_ascii() || is_nfkc_quick(text.chars()) == IsNormalized::Yes {
        return text;
    }
    Cow::Owned(text.nfkc().collect())
}

/// Removes control characters, but those that are white space, and the ones that only say how text is encoded or
/// drawn: byte order marks and soft hyphens.
pub(crate) fn remove_control(text: Cow<'_, str>) -> Cow<'_, str> {
    let removed =
        |c: char| (c.is_control() && !c.is_whitespace()) || c == '\u{feff}' || c == '\u{ad}';
    if !text.contains(removed) {
        return text;
    }
    Cow::Owned(text.chars().filter(|&c| !removed(c)).collect())
}

/// Makes one space of each run of white space, and nothing of those at the ends.
pub(crate) fn collapse_whitespace(text: Cow<'_, str>) -> Cow<'_, str> {
    if is_collapsed(&text) {
        return text;
    }
    let mut collapsed = String::with_capacity(text.len());
    for word in text.split_whitespace() {
        if !collapsed.is_empty() {
            collapsed.push(' ');
        }
        collapsed.push_str(word);
    }
    Cow::Owned(collapsed)
}

fn is_collapsed(text: &str) -> bool {
    let mut before = ' ';
    for c in text.chars() {
        if c.is_whitespace() && (c != ' ' || before == ' ') {
            return false;
        }
        before = c;
    }
    text.is_empty() || before != ' '
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: Config = Config {
        html: true,
        nfkc: true,
        control: true,
        whitespace: true,
    };

    #[test]
    fn plain_texts_are_those_that_no_step_changes() {
        for text in [
            "a", "a b, c.", "猫", "a  b", " a", "a ", "a\nb", "a\u{7f}", "a<b", "a&b", "\u{0}", "é",
        ] {
            let stripped = crate::html::strip(Cow::Borrowed(text));
            let changed = collapse_whitespace(remove_control(nfkc(stripped)));
            if is_plain(text, ALL) {
                assert_eq!(changed, text, "{text:?} is called plain");
            } else {
                assert!(
                    !text.is_ascii() || changed != text || text.contains(['<', '&']),
                    "{text:?} is plain"
                );
            }
        }
        assert!(is_plain("a b, c.", ALL));
        assert!(is_plain(
            "a  b\n<&",
            Config {
                html: false,
                nfkc: true,
                control: true,
                whitespace: false
            }
        ));
    }

    #[test]
    fn composed_and_decomposed_letters_become_one() {
        assert_eq!(nfkc(Cow::Borrowed("e\u{301}")), "é");
        assert_eq!(nfkc(Cow::Borrowed("Ａ１ｶﾞ①")), "A1ガ1");
    }

    #[test]
    fn line_ends_are_white_space_not_control() {
        assert_eq!(
            remove_control(Cow::Borrowed("a\r\n\tb\u{0}\u{85}\u{feff}c\u{ad}d")),
            "a\r\n\tb\u{85}cd"
        );
        assert_eq!(
            collapse_whitespace(Cow::Borrowed(" a\r\n\tb \u{85}\u{a0}c ")),
            "a b c"
        );
    }
}
