//! How many tokens inputs have, without a tokenizer.

use embedgate_plugin::Inputs;

/// Estimates: token ids are counted; of a text, four ASCII bytes are a token, and every other character is one.
///
/// Tokenizers of embedding models give English about 4.5 bytes a token, and Chinese about one character. Alphabets
/// other than Latin get more than they have, by up to four times: the estimate errs to the side of the limit.
pub(crate) fn tokens(inputs: &Inputs) -> u64 {
    match inputs {
        Inputs::Texts(texts) => texts.iter().map(|text| of_text(text)).sum(),
        Inputs::Tokens(lists) => lists.iter().map(|ids| ids.len() as u64).sum(),
    }
}

fn of_text(text: &str) -> u64 {
    let (mut n_ascii, mut n_other) = (0_u64, 0_u64);
    for &byte in text.as_bytes() {
        n_ascii += u64::from(byte.is_ascii());
        // The first byte of a character of several.
        n_other += u64::from(byte >= 0xc0);
    }
    (n_ascii.div_ceil(4) + n_other).max(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_estimated_and_ids_counted() {
        assert_eq!(of_text(""), 1);
        assert_eq!(of_text("abcd"), 1);
        assert_eq!(of_text("abcde"), 2);
        assert_eq!(of_text("猫坐在垫子上。"), 7);
        assert_eq!(of_text("猫 cat"), 2);
        assert_eq!(
            tokens(&Inputs::Texts(vec!["abcde".to_owned(), "é".to_owned()])),
            3
        );
        assert_eq!(tokens(&Inputs::Tokens(vec![vec![1, 2], vec![3]])), 3);
    }
}
