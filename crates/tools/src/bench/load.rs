//! The amount of load.

use std::fmt;

/// The amount of load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Load {
    /// So many clients, each with one request at a time.
    Closed(usize),
    /// So many requests a second, at random moments.
    Open(f64),
}

impl fmt::Display for Load {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed(1) => f.write_str("1 client"),
            Self::Closed(n) => write!(f, "{n} clients"),
            Self::Open(rate) => write!(f, "{rate} requests/s"),
        }
    }
}
