//! Attributes of nodes.

use crate::proto::{Attribute, attribute};

/// An integer.
pub(super) fn int(name: &str, i: i64) -> Attribute {
    Attribute {
        name: name.into(),
        i,
        kind: attribute::INT,
        ..Attribute::default()
    }
}

/// Several integers.
pub(super) fn ints(name: &str, ints: &[i64]) -> Attribute {
    Attribute {
        name: name.into(),
        ints: ints.into(),
        kind: attribute::INTS,
        ..Attribute::default()
    }
}

/// A number.
pub(super) fn float(name: &str, f: f32) -> Attribute {
    Attribute {
        name: name.into(),
        f,
        kind: attribute::FLOAT,
        ..Attribute::default()
    }
}
