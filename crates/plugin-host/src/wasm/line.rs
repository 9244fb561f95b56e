//! Text of guests and of errors as one line of the log.

/// A longer line of a guest is cut.
const MOST_LINE: usize = 2048;

/// One line of an error's several, such as those of a backtrace.
pub(super) fn one_line(text: &str) -> String {
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    printable(&lines.join(" / "))
}

/// One line, whatever the guest writes: nobody can forge a second one.
pub(super) fn printable(text: &str) -> String {
    let characters = text.chars().take(MOST_LINE);
    characters
        .flat_map(|c| {
            let is_plain = !c.is_control();
            let plain = is_plain.then_some(c);
            let escaped = (!is_plain)
                .then(|| c.escape_default())
                .into_iter()
                .flatten();
            plain.into_iter().chain(escaped)
        })
        .collect()
}
