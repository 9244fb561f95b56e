//! Says what a panic was before it becomes a bare `unreachable` trap.

use std::sync::atomic::{AtomicBool, Ordering};

/// Logs message and place of panics from now on. In tests the test harness's own hook does that.
pub(crate) fn install_hook() {
    static INSTALLED: AtomicBool = AtomicBool::new(false);
    if cfg!(target_family = "wasm") && !INSTALLED.swap(true, Ordering::Relaxed) {
        std::panic::set_hook(Box::new(|info| {
            crate::log::write(crate::log::Level::Error, &info.to_string(), &[])
        }));
    }
}
