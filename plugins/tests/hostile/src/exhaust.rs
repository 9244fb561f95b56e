//! Attacks that never return, or break the instance.

use std::hint::black_box;

use embedgate_plugin::{clock, kv, log, random};

use crate::Attack;

/// Runs the attack, if it is one of these. Those that return do so because the host stopped nothing.
pub(crate) fn run(attack: Attack<'_>) {
    match attack.name {
        "loop" => spin(),
        "loop-in-host-call" => loop {
            black_box(clock::monotonic_ns());
        },
        "memory-bomb" => bomb(),
        "recursion" => _ = black_box(recurse(black_box(1))),
        "trap" => trap(),
        "panic" => panic!("the guest panicked, as it was told"),
        "out-of-bounds" => read_out_of_bounds(),
        "log-flood" => flood_log(),
        "log-huge" => log::write(log::Level::Info, &"x".repeat(16 << 20), &[]),
        "log-forge" => log::write(
            log::Level::Info,
            "a\n2027-01-15 ERROR forged\u{1b}[31m",
            &[],
        ),
        "kv-spam" => spam_kv(),
        "kv-fill" => fill_kv(),
        "random-huge" => _ = black_box(random::bytes(u32::MAX)),
        "grow" => _ = black_box(touched(8 << 20)),
        _ => {}
    }
}

fn spin() {
    let mut n = 0_u64;
    loop {
        n = black_box(n.wrapping_add(1));
    }
}

fn bomb() {
    let mut hoard = Vec::new();
    loop {
        hoard.push(black_box(touched(1 << 20)));
    }
}

/// Returns so many bytes, each page of which is really there.
fn touched(n: usize) -> Vec<u8> {
    vec![1; n]
}

#[expect(unconditional_recursion, reason = "the attack")]
fn recurse(n: u64) -> u64 {
    let here = black_box([n; 16]);
    recurse(n + 1) + here[15]
}

fn trap() {
    #[cfg(target_family = "wasm")]
    core::arch::wasm32::unreachable();
    #[cfg(not(target_family = "wasm"))]
    panic!("trap");
}

#[expect(
    unsafe_code,
    reason = "the attack: nothing safe reads beyond the memory"
)]
fn read_out_of_bounds() {
    let beyond = std::ptr::without_provenance::<u8>(0xffff_fff0);
    // SAFETY: none. The host must make this a trap.
    black_box(unsafe { beyond.read_volatile() });
}

fn flood_log() {
    for n in 0..1_000_000 {
        log::write(log::Level::Error, &format!("line {n}"), &[]);
    }
}

fn spam_kv() {
    for _ in 0..10_000_000 {
        black_box(kv::add("spam", 1, None).is_ok());
    }
}

/// Fills what the grant has room for, and more: large values under many keys.
fn fill_kv() {
    let value = vec![0; 64 * 1024];
    for n in 0..100_000 {
        black_box(kv::set(&format!("fill-{n}"), &value, None).is_ok());
    }
}
