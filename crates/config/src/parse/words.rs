//! The words for what serde has against a value: no secret is repeated, and types are said as TOML has them.

/// Returns what is wrong with a key, of serde's own message.
pub(super) fn in_words(key: &str, message: String) -> String {
    // What was found in place of a list of keys may be a key.
    let names_no_value = ["unknown variant", "unknown field", "missing field"]
        .iter()
        .any(|start| message.starts_with(start));
    let is_secret = (key == "auth.keys" || key.starts_with("auth.keys[")) && !names_no_value;
    if is_secret && key.ends_with(".hash") {
        "must be a hash, which `embedgate key new` prints beside its key".into()
    } else if is_secret && key.ends_with(".expires") {
        "must be a date or a time, such as 2027-12-31 or 2027-12-31T18:00:00Z".into()
    } else if is_secret {
        "must be a list of keys, keys = [\"${EMBEDGATE_KEY}\"], or of tables with key or hash, name, models, lane, limit, expires, admin".into()
    } else if key.starts_with("auth.")
        && let Some((_, expected)) = message.split_once("`, expected ")
        && message.starts_with("unknown variant")
    {
        // What stands here may be a key in the wrong place.
        format!("must be {expected}")
    } else {
        explained(message)
    }
}

/// Says what Rust's names of types mean, and which key was probably meant.
fn explained(message: String) -> String {
    let types = [
        ("usize", "a whole number"),
        ("u64", "a whole number"),
        ("u32", "a whole number"),
        ("u16", "a whole number"),
        ("i64", "a whole number"),
        ("a nonzero usize", "a whole number above 0"),
        ("f64", "a number"),
        ("f32", "a number"),
        ("a boolean", "true or false"),
        ("a string", "text in quotes"),
        ("path string", "a path in quotes"),
        ("a sequence", "a list in brackets"),
        ("a map", "a table"),
    ];
    if let Some((found, expected)) = message.rsplit_once(", expected ") {
        let known = types.iter().find(|(name, _)| *name == expected);
        if let Some((_, words)) = known {
            return format!("{found}, expected {words}");
        }
        if expected.starts_with("struct ") {
            return format!("{found}, expected a table");
        }
    }
    if let Some(rest) = message.strip_prefix("unknown field `") {
        let mut parts = rest.split('`');
        let given = parts.next().unwrap_or_default();
        let known = parts.skip(1).step_by(2);
        let like = known.map(|name| (name, strsim::jaro_winkler(given, name)));
        let nearest = like.max_by(|(_, a), (_, b)| a.total_cmp(b));
        if let Some((name, _)) = nearest.filter(|(_, likeness)| *likeness > 0.85) {
            return format!("{message}; did you mean `{name}`?");
        }
    }
    message
}
