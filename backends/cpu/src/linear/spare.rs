//! Memory of each thread, for results on the way to their place.

use std::cell::RefCell;

use half::bf16;

use crate::{memory::at_least, onednn::Number};

/// A number of which each thread keeps some to spare, between one product and the next. They are bounded by the size of a
/// tile, and stay until the thread ends.
pub(super) trait Spare: Number {
    /// Lends `n` numbers, which hold anything.
    fn with_spare<R>(n: usize, use_them: impl FnOnce(&mut [Self]) -> R) -> R;
}

impl Spare for f32 {
    fn with_spare<R>(n: usize, use_them: impl FnOnce(&mut [Self]) -> R) -> R {
        thread_local! {
            static SPARE: RefCell<Vec<f32>> = const { RefCell::new(Vec::new()) };
        }
        SPARE.with_borrow_mut(|all| use_them(at_least(all, n)))
    }
}

impl Spare for bf16 {
    fn with_spare<R>(n: usize, use_them: impl FnOnce(&mut [Self]) -> R) -> R {
        thread_local! {
            static SPARE: RefCell<Vec<bf16>> = const { RefCell::new(Vec::new()) };
        }
        SPARE.with_borrow_mut(|all| use_them(at_least(all, n)))
    }
}
