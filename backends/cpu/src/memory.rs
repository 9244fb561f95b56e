//! Memory that is kept from batch to batch.

/// Cuts or lengthens with zeros; what was larger once is given back only by a batch far smaller.
pub(crate) fn resize<T: Copy + Default>(numbers: &mut Vec<T>, n: usize) {
    numbers.resize(n, T::default());
    if numbers.capacity() > MOST_KEPT / size_of::<T>() && numbers.capacity() > 4 * n {
        numbers.shrink_to(n);
    }
}

/// Memory of one buffer that is kept for the next batch, in bytes: a long input leaves no mark.
const MOST_KEPT: usize = 16 << 20;

/// The first so many numbers, of as many as there ever had to be.
pub(crate) fn at_least<T: Copy + Default>(all: &mut Vec<T>, n: usize) -> &mut [T] {
    all.resize(all.len().max(n), T::default());
    &mut all[..n]
}
