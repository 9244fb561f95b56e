//! Takes the text out of HTML: no parser, but what is left of pages and chunks of them, in time linear in the text.
//!
//! A tag is a `<` before a letter, `/`, `!` or `?`, up to the next `>` outside of quotes. Tags within a line of text
//! vanish, others leave a space. Scripts, styles and comments vanish with what is in them. Entities are resolved:
//! numeric ones, and names that texts have often.

use std::borrow::Cow;

/// Returns the text of a piece of HTML.
pub(crate) fn strip(text: Cow<'_, str>) -> Cow<'_, str> {
    if !text.contains(['<', '&']) {
        return text;
    }
    let mut stripper = Stripper {
        rest: &text,
        stripped: String::with_capacity(text.len()),
        open_quote: false,
        no_end: false,
        no_close: false,
    };
    stripper.run();
    Cow::Owned(stripper.stripped)
}

struct Stripper<'a> {
    rest: &'a str,
    stripped: String,
    /// A quote was not closed, so none counts any more. This and the next two are remembered because to look again and
    /// again for what is not there would be quadratic.
    open_quote: bool,
    /// No `>` is left.
    no_end: bool,
    /// A comment, a script or a style was not closed, so none counts any more.
    no_close: bool,
}

/// Tags that are part of a line: they leave no space, as in `H<sub>2</sub>O`.
const INLINE: [&str; 22] = [
    "a", "abbr", "b", "bdi", "bdo", "cite", "code", "del", "em", "font", "i", "ins", "kbd", "mark",
    "q", "s", "small", "span", "strong", "sub", "sup", "u",
];

/// The longest name in [`resolve_name`], and the longest number that can be a character, with its `&#`.
const MAX_ENTITY: usize = 10;

impl Stripper<'_> {
    fn run(&mut self) {
        while let Some(at) = self.rest.find(['<', '&']) {
            self.stripped.push_str(&self.rest[..at]);
            self.rest = &self.rest[at..];
            let done = if self.rest.starts_with('&') {
                self.entity()
            } else {
                self.tag()
            };
            if !done {
                self.stripped.push_str(&self.rest[..1]);
                self.rest = &self.rest[1..];
            }
        }
        self.stripped.push_str(self.rest);
    }

    /// Resolves an entity; says whether there was one.
    fn entity(&mut self) -> bool {
        let Some(end) = self
            .rest
            .bytes()
            .take(MAX_ENTITY + 1)
            .position(|byte| byte == b';')
        else {
            return false;
        };
        let Some(c) = resolve(&self.rest[1..end]) else {
            return false;
        };
        self.stripped.push(c);
        self.rest = &self.rest[end + 1..];
        true
    }

    /// Removes a tag, a comment, a script or a style; says whether there was one.
    fn tag(&mut self) -> bool {
        if self.rest.starts_with("<!--") && !self.no_close {
            if let Some(end) = self.rest.find("-->") {
                self.rest = &self.rest[end + 3..];
                return true;
            }
            self.no_close = true;
        }
        let begins = self
            .rest
            .as_bytes()
            .get(1)
            .is_some_and(|&b| b.is_ascii_alphabetic() || b"/!?".contains(&b));
        let Some(end) = begins.then(|| self.tag_end()).flatten() else {
            return false;
        };
        let tag = &self.rest[1..end];
        self.rest = &self.rest[end + 1..];
        let name = tag.trim_start_matches('/');
        let name = &name[..name
            .bytes()
            .position(|byte| !byte.is_ascii_alphanumeric())
            .unwrap_or(name.len())];
        if !tag.starts_with('/') && !tag.ends_with('/') {
            self.skip_raw(name);
        }
        if !INLINE
            .iter()
            .any(|inline| name.eq_ignore_ascii_case(inline))
        {
            self.stripped.push(' ');
        }
        true
    }

    /// Finds the `>` that ends the tag at the beginning of the rest.
    fn tag_end(&mut self) -> Option<usize> {
        if self.no_end {
            return None;
        }
        if !self.open_quote {
            let mut quote = None;
            for (at, byte) in self.rest.bytes().enumerate() {
                match (quote, byte) {
                    (None, b'>') => return Some(at),
                    (None, b'"' | b'\'') => quote = Some(byte),
                    (Some(open), _) if open == byte => quote = None,
                    _ => {}
                }
            }
            self.open_quote = true;
        }
        let end = self.rest.find('>');
        self.no_end = end.is_none();
        end
    }

    /// Skips what a script or a style contains; its end tag is left.
    fn skip_raw(&mut self, name: &str) {
        let is_raw = ["script", "style"]
            .iter()
            .any(|raw| name.eq_ignore_ascii_case(raw));
        if !is_raw || self.no_close {
            return;
        }
        match find_ignoring_case(self.rest, format!("</{name}").as_bytes()) {
            Some(at) => self.rest = &self.rest[at..],
            None => self.no_close = true,
        }
    }
}

fn find_ignoring_case(text: &str, needle: &[u8]) -> Option<usize> {
    text.as_bytes()
        .windows(needle.len())
        .position(|window| window.eq_ignore_ascii_case(needle))
}

/// Resolves what stands between `&` and `;`.
fn resolve(entity: &str) -> Option<char> {
    let Some(number) = entity.strip_prefix('#') else {
        return resolve_name(entity);
    };
    let code = match number.strip_prefix(['x', 'X']) {
        Some(digits) => u32::from_str_radix(digits, 16),
        None => number.parse(),
    };
    code.ok().and_then(char::from_u32)
}

fn resolve_name(name: &str) -> Option<char> {
    Some(match name {
        "amp" => '&',
        "lt" => '<',
        "gt" => '>',
        "quot" => '"',
        "apos" => '\'',
        "nbsp" | "ensp" | "emsp" | "thinsp" => ' ',
        "shy" => '\u{ad}',
        "ndash" => '–',
        "mdash" => '—',
        "hellip" => '…',
        "lsquo" => '‘',
        "rsquo" => '’',
        "ldquo" => '“',
        "rdquo" => '”',
        "laquo" => '«',
        "raquo" => '»',
        "bull" => '•',
        "middot" => '·',
        "copy" => '©',
        "reg" => '®',
        "trade" => '™',
        "deg" => '°',
        "plusmn" => '±',
        "times" => '×',
        "euro" => '€',
        "pound" => '£',
        "yen" => '¥',
        "sect" => '§',
        "para" => '¶',
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;

    fn stripped(html: &str) -> String {
        strip(Cow::Borrowed(html))
            .split_whitespace()
            .collect::<Vec<_>>()
            .join(" ")
    }

    #[test]
    fn words_of_different_blocks_do_not_run_together() {
        assert_eq!(stripped("<p>one</p><p>two<br/>three</p>"), "one two three");
        assert_eq!(
            stripped("H<sub>2</sub>O is <b class=\"x\">wet</b>"),
            "H2O is wet"
        );
    }

    #[test]
    fn scripts_styles_and_comments_vanish_with_what_is_in_them() {
        assert_eq!(
            stripped("a<script>if (1<2) {}</SCRIPT>b<style>p>a{}</style>c<!-- d > -->e"),
            "a b ce"
        );
        assert_eq!(stripped("a<script src='x'/>b"), "a b");
    }

    #[test]
    fn a_sign_that_begins_no_tag_stays() {
        for text in [
            "1 < 2 > 0",
            "a <3 b",
            "AT&T & co",
            "&unknown; &#x110000; &#55296;",
            "a <b",
            "x <!-- y",
        ] {
            assert_eq!(stripped(text), text);
        }
    }

    #[test]
    fn entities_are_resolved_once() {
        assert_eq!(
            stripped("&lt;b&gt; &amp;lt; &#65;&#x42; &rsquo;"),
            "<b> &lt; AB ’"
        );
    }

    #[test]
    fn a_sign_in_quotes_does_not_end_a_tag_unless_the_quote_is_open() {
        assert_eq!(stripped("<img alt='a > b'>c"), "c");
        assert_eq!(stripped("<img alt='a > b"), "b");
    }

    #[test]
    fn hostile_texts_take_linear_time() {
        let started = Instant::now();
        for piece in [
            "<a \"", "<", "<!--", "<script>", "&", "&#", "<a", "</", "<style>", "<a '>\"",
        ] {
            strip(Cow::Owned(piece.repeat(200_000)));
        }
        // Quadratic, each of them would take minutes.
        assert!(
            started.elapsed() < Duration::from_secs(5),
            "took {:?}",
            started.elapsed()
        );
    }
}
