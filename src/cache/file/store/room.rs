//! The room that entries take in the file, counted in pages, and the room that they may take.

/// Bytes of a page.
pub(super) const PAGE: u64 = 4096;
const MOST_COPIED: u64 = 16 << 20;
/// The file grows by so much once it is as long.
const REGION: u64 = 4 << 30;
/// Bytes of an entry without its value: keys in two tables, and its part of the pages above them.
pub(super) const ENTRY_OVERHEAD: u64 = 250;

/// Bytes that an entry may take in the file.
pub(super) fn room_of(value_bytes: usize) -> u64 {
    let bytes = value_bytes as u64;
    let of_value = match bytes {
        // Several share a page, which is two thirds full on average.
        0..1500 => bytes * 3 / 2,
        _ => (bytes + 100).div_ceil(PAGE).next_power_of_two() * PAGE,
    };
    of_value + ENTRY_OVERHEAD
}

/// The bytes of the file that a commit may copy.
pub(super) fn most_copied(max_bytes: u64) -> u64 {
    (max_bytes / 16).min(MOST_COPIED)
}

/// The room that entries may take in a file of this length, which doubles where it may. What two commits copy is free, for the
/// first one's old pages come back only after the second, and a sixteenth is for what is not counted.
pub(super) fn limit(mut file_bytes: u64, max_bytes: u64) -> u64 {
    let next = |bytes: u64| match bytes {
        ..REGION => bytes * 2,
        _ => (bytes / REGION + 1) * REGION,
    };
    while next(file_bytes) <= max_bytes {
        file_bytes = next(file_bytes);
    }
    let longest = file_bytes.min(max_bytes);
    (longest - longest / 16).saturating_sub(2 * most_copied(max_bytes))
}
