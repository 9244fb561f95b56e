//! One row, made of a line.

use serde_json::Value;

/// One text, and what it is known by.
#[derive(Clone, Debug, PartialEq)]
pub(in crate::commands::embed) struct Row {
    /// A string or a whole number.
    pub(in crate::commands::embed) id: Option<Value>,
    pub(in crate::commands::embed) text: String,
}

/// The members of a JSON object that make a row.
pub(super) struct Members {
    pub(super) text: String,
    pub(super) id: Option<String>,
}

/// Takes a line for a text as it is.
pub(super) fn of_line(line: Vec<u8>) -> Result<Row, String> {
    let text = String::from_utf8(line).map_err(|e| not_text(&e.utf8_error()))?;
    Ok(Row { id: None, text })
}

/// Takes text and id from a line that is a JSON object.
pub(super) fn of_json(line: &[u8], members: &Members) -> Result<Row, String> {
    let line = std::str::from_utf8(line).map_err(|e| not_text(&e))?;
    let mut object: serde_json::Map<String, Value> =
        serde_json::from_str(line).map_err(|e| format!("is no JSON object: {e}"))?;
    let text = match object.remove(&members.text) {
        Some(Value::String(text)) => text,
        Some(_) => return Err(format!("member \"{}\" is no string", members.text)),
        None => {
            let names: Vec<&str> = object.keys().take(10).map(String::as_str).collect();
            let names = names.join(", ");
            return Err(format!(
                "has no member \"{}\": there are {names}",
                members.text
            ));
        }
    };
    let id = match &members.id {
        None => None,
        Some(name) => match object.remove(name) {
            Some(id @ Value::String(_)) => Some(id),
            Some(id) if id.is_i64() => Some(id),
            Some(_) => {
                return Err(format!(
                    "member \"{name}\" is no string and no whole number"
                ));
            }
            None => return Err(format!("has no member \"{name}\"")),
        },
    };
    Ok(Row { id, text })
}

fn not_text(error: &std::str::Utf8Error) -> String {
    format!("is not UTF-8 at byte {}", error.valid_up_to())
}
