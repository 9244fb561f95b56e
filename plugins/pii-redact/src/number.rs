//! Finds phone numbers, payment cards and national ids.
//!
//! At each digit that begins a number a few bytes are looked at, so the time is linear in the text whatever it is.

use std::ops::Range;

use crate::{Config, Kind};

/// Finds all numbers within a part of the text, in order and apart.
pub(crate) fn find(
    text: &[u8],
    part: Range<usize>,
    config: &Config,
    found: &mut Vec<(Range<usize>, Kind)>,
) {
    let mut at = part.start;
    while at < part.end {
        let begins = (text[at].is_ascii_digit() || text[at] == b'+') && is_apart_before(text, at);
        match begins
            .then(|| number_at(&text[..part.end], at, config))
            .flatten()
        {
            Some((end, kind)) => {
                found.push((at..end, kind));
                at = end;
            }
            None => at += 1,
        }
    }
}

/// Returns where the number that begins here ends, and what it is.
fn number_at(text: &[u8], at: usize, config: &Config) -> Option<(usize, Kind)> {
    if text[at] != b'+' && n_digits(text, at) < 2 {
        return None;
    }
    // What has a checksum goes before what has none.
    let id = || {
        config
            .national_id
            .then(|| resident_id(text, at).or_else(|| social_security(text, at)))
            .flatten()
    };
    let card = || config.card.then(|| card(text, at)).flatten();
    let phone = || {
        config
            .phone
            .then(|| chinese_mobile(text, at).or_else(|| international(text, at)))
            .flatten()
    };
    let id = id().map(|end| (end, Kind::NationalId));
    id.or_else(|| card().map(|end| (end, Kind::Card)))
        .or_else(|| phone().map(|end| (end, Kind::Phone)))
}

/// Resident id of the People's Republic of China: 17 digits and a check digit. Source: GB 11643-1999.
fn resident_id(text: &[u8], at: usize) -> Option<usize> {
    const WEIGHTS: [u32; 17] = [7, 9, 10, 5, 8, 4, 2, 1, 6, 3, 7, 9, 10, 5, 8, 4, 2];
    let id = text.get(at..at + 18)?;
    let (digits, check) = id.split_at(17);
    if !digits.iter().all(u8::is_ascii_digit) || !is_apart_after(text, at + 18) {
        return None;
    }
    let number = |range: Range<usize>| {
        digits[range]
            .iter()
            .fold(0, |n, &digit| n * 10 + value(digit))
    };
    let is_birthday = (1900..2100).contains(&number(6..10))
        && (1..=12).contains(&number(10..12))
        && (1..=31).contains(&number(12..14));
    let sum: u32 = digits
        .iter()
        .zip(WEIGHTS)
        .map(|(&digit, weight)| value(digit) * weight)
        .sum();
    let expected = b"10X98765432"[(sum % 11) as usize];
    (is_birthday && check[0].eq_ignore_ascii_case(&expected)).then_some(at + 18)
}

/// Social security number of the USA, with its two hyphens or spaces; the areas that were never given out are none.
fn social_security(text: &[u8], at: usize) -> Option<usize> {
    let (end, digits) = grouped(text, at, &[3, 2, 4])?;
    let given = !digits.starts_with(b"000") && !digits.starts_with(b"666") && digits[0] != b'9';
    (given && &digits[3..5] != b"00" && &digits[5..] != b"0000").then_some(end)
}

/// Payment card: 13 to 16 or 19 digits, at once or in the groups printed on cards, ending in Luhn's check digit.
fn card(text: &[u8], at: usize) -> Option<usize> {
    // No network gives out 17 or 18 digits, and Chinese ids have 18.
    const LAYOUTS: [&[usize]; 10] = [
        &[4, 4, 4, 4, 3],
        &[4, 4, 4, 4],
        &[4, 6, 5],
        &[4, 6, 4],
        &[6, 13],
        &[19],
        &[16],
        &[15],
        &[14],
        &[13],
    ];
    // No network's numbers begin otherwise.
    if !(b'2'..=b'6').contains(&text[at]) {
        return None;
    }
    let mut layouts = LAYOUTS
        .iter()
        .filter_map(|layout| grouped(text, at, layout));
    layouts
        .find(|(_, digits)| is_luhn(digits) && digits.iter().any(|digit| *digit != digits[0]))
        .map(|(end, _)| end)
}

/// Source: ISO/IEC 7812-1, annex B.
fn is_luhn(digits: &[u8]) -> bool {
    let doubled = |digit: u32| if digit < 5 { digit * 2 } else { digit * 2 - 9 };
    let one = |(index, &digit): (usize, &u8)| {
        if index % 2 == 1 {
            doubled(value(digit))
        } else {
            value(digit)
        }
    };
    digits.iter().rev().enumerate().map(one).sum::<u32>() % 10 == 0
}

/// Mobile number of mainland China: 1, a digit from 3, and nine more, with or without the country before it.
fn chinese_mobile(text: &[u8], at: usize) -> Option<usize> {
    let mut start = at;
    for country in [&b"+86"[..], b"0086", b"86"] {
        if text[at..].starts_with(country) {
            start = at + country.len();
            start += usize::from(matches!(text.get(start), Some(b' ' | b'-')));
            break;
        }
    }
    let is_mobile = |digits: &[u8]| digits[0] == b'1' && digits[1] >= b'3';
    let mut layouts = [&[11][..], &[3, 4, 4]]
        .into_iter()
        .filter_map(|layout| grouped(text, start, layout));
    layouts
        .find(|(_, digits)| is_mobile(digits))
        .map(|(end, _)| end)
}

/// International number: a plus, then 7 to 15 digits with at most two signs between groups. Source: E.164, E.123.
fn international(text: &[u8], at: usize) -> Option<usize> {
    let is_country = text
        .get(at + 1)
        .is_some_and(|&digit| (b'1'..=b'9').contains(&digit));
    if text[at] != b'+' || !is_country {
        return None;
    }
    let (mut n_digits, mut n_signs, mut end) = (0, 0, None);
    for (byte, index) in text[at + 1..].iter().zip(at + 1..) {
        match byte {
            b'0'..=b'9' => (n_digits, n_signs) = (n_digits + 1, 0),
            b' ' | b'-' | b'.' | b'(' | b')' | b'/' if n_signs < 2 => n_signs += 1,
            _ => break,
        }
        if n_digits > 15 {
            // The group that goes past what a number may have is no part of it.
            break;
        }
        if n_signs == 0 && n_digits >= 7 && is_apart_after(text, index + 1) {
            end = Some(index + 1);
        }
    }
    end
}

/// Returns where groups of so many digits end, one sign between them and always the same, and the digits alone.
fn grouped(text: &[u8], at: usize, lengths: &[usize]) -> Option<(usize, Vec<u8>)> {
    // Most numbers in a text are of no kind at all: they are out here, before anything is copied.
    if n_digits(text, at) != lengths[0] {
        return None;
    }
    let sign = text.get(at + lengths[0]);
    let mut digits = Vec::with_capacity(19);
    let mut end = at;
    for (&length, index) in lengths.iter().zip(0..) {
        if index > 0 {
            if !matches!(sign, Some(b' ' | b'-')) || text.get(end) != sign {
                return None;
            }
            end += 1;
        }
        let group = text.get(end..end + length)?;
        if !group.iter().all(u8::is_ascii_digit) {
            return None;
        }
        digits.extend_from_slice(group);
        end += length;
    }
    is_apart_after(text, end).then_some((end, digits))
}

/// Counts digits, up to one more than any number has in a row.
fn n_digits(text: &[u8], at: usize) -> usize {
    text[at.min(text.len())..]
        .iter()
        .take(20)
        .take_while(|byte| byte.is_ascii_digit())
        .count()
}

/// Says whether what begins here is not the end of something longer: a word, an amount, a date, a UUID.
fn is_apart_before(text: &[u8], at: usize) -> bool {
    let before = |n: usize| at.checked_sub(n).map(|index| text[index]);
    match before(1) {
        Some(b'.' | b',' | b'-' | b'/') => !before(2).is_some_and(|byte| byte.is_ascii_digit()),
        byte => !byte.is_some_and(is_word),
    }
}

/// Says whether what ends here is not the beginning of something longer.
fn is_apart_after(text: &[u8], end: usize) -> bool {
    match text.get(end) {
        Some(b'.' | b',' | b'-' | b'/') => !text.get(end + 1).is_some_and(u8::is_ascii_digit),
        byte => !byte.copied().is_some_and(is_word),
    }
}

fn is_word(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || byte == b'_'
}

fn value(digit: u8) -> u32 {
    u32::from(digit - b'0')
}
