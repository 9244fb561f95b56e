//! Finds e-mail addresses, as people write them: ASCII, without quotes and comments.

use std::ops::Range;

/// RFC 5321, section 4.5.3.1: what stands before the sign, and after it.
const MAX_LOCAL: usize = 64;
const MAX_DOMAIN: usize = 255;

/// Finds all addresses, in order and apart. Each byte is looked at at most twice: neither side goes past another `@`.
pub(crate) fn find(text: &[u8]) -> Vec<Range<usize>> {
    let mut found: Vec<Range<usize>> = Vec::new();
    let mut from = 0;
    while let Some(at) = text[from..]
        .iter()
        .position(|&byte| byte == b'@')
        .map(|at| from + at)
    {
        let after = found.last().map_or(0, |last| last.end);
        let start = at - local_length(&text[after..at]);
        let end = at + 1 + domain_length(&text[at + 1..]);
        if start < at && end > at + 1 {
            found.push(start..end);
        }
        from = end.max(at + 1);
    }
    found
}

/// Returns how many bytes before the sign are the name in an address; 0: none.
fn local_length(before: &[u8]) -> usize {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b"._%+-'".contains(byte);
    let length = before.iter().rev().take_while(|byte| allowed(byte)).count();
    if length > MAX_LOCAL {
        return 0;
    }
    // A dot or a quote at the beginning is the sentence's.
    let local = &before[before.len() - length..];
    length - local.iter().take_while(|byte| b".'".contains(byte)).count()
}

/// Returns how many bytes after the sign are the domain in an address: labels with dots between them, of which the last
/// has two letters or more; 0: none.
fn domain_length(after: &[u8]) -> usize {
    let allowed = |byte: &u8| byte.is_ascii_alphanumeric() || b".-".contains(byte);
    let domain = &after[..after
        .iter()
        .take_while(|byte| allowed(byte))
        .count()
        .min(MAX_DOMAIN)];
    let (mut length, mut start, mut n_labels) = (0, 0, 0);
    for label in domain.split(|&byte| byte == b'.') {
        let end = start + label.len();
        if label.is_empty() || label[0] == b'-' {
            break;
        }
        n_labels += 1;
        if n_labels > 1 && label.len() > 1 && label.iter().all(u8::is_ascii_alphabetic) {
            length = end;
        }
        start = end + 1;
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<&str> {
        find(text.as_bytes())
            .into_iter()
            .map(|range| &text[range])
            .collect()
    }

    #[test]
    fn addresses_are_found_without_the_sentence_around_them() {
        assert_eq!(
            found("Write to a.b+c@mail.example.com."),
            ["a.b+c@mail.example.com"]
        );
        assert_eq!(
            found("邮箱：zhang_san@example.cn，谢谢"),
            ["zhang_san@example.cn"]
        );
        assert_eq!(found("<x@y.org>, ('p@q.net')"), ["x@y.org", "p@q.net"]);
        assert_eq!(found("13812345678@qq.com"), ["13812345678@qq.com"]);
    }

    #[test]
    fn a_sign_alone_is_no_address() {
        for text in [
            "@",
            "a@",
            "@b.com",
            "a@b",
            "a@b.c",
            "a@-b.com",
            "me @home.com",
            "a@1.2",
            "@@@a@@",
        ] {
            assert_eq!(found(text), [""; 0], "{text}");
        }
        assert_eq!(found(&format!("{}@b.com", "a".repeat(65))), [""; 0]);
    }
}
