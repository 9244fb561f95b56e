//! The processor's cores: how many there are for arithmetic, and threads that stay on theirs.

/// A core, by one of its logical processors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Core(usize);

impl Core {
    /// Keeps the calling thread on this core. Says whether the system did so; where it did not, it goes on choosing.
    #[cfg(target_os = "linux")]
    #[must_use]
    pub fn pin_this_thread(self) -> bool {
        let mut only = rustix::thread::CpuSet::new();
        only.set(self.0);
        rustix::thread::sched_setaffinity(None, &only).is_ok()
    }

    /// Only Linux is asked.
    #[cfg(not(target_os = "linux"))]
    #[must_use]
    pub fn pin_this_thread(self) -> bool {
        false
    }
}

/// The physical cores that the calling thread may run on; none where the system does not say.
#[cfg(target_os = "linux")]
#[must_use]
pub fn physical() -> Vec<Core> {
    use rustix::thread::CpuSet;
    let Ok(allowed) = rustix::thread::sched_getaffinity(None) else {
        return Vec::new();
    };
    let allowed = (0..CpuSet::MAX_CPU).filter(|processor| allowed.is_set(*processor));
    one_of_each(allowed, |processor| {
        let topology = format!("/sys/devices/system/cpu/cpu{processor}/topology");
        std::fs::read_to_string(format!("{topology}/thread_siblings_list")).ok()
    })
}

/// Only Linux is asked.
#[cfg(not(target_os = "linux"))]
#[must_use]
pub fn physical() -> Vec<Core> {
    Vec::new()
}

/// The first of the logical processors that have the same siblings; each that tells no siblings is a core of its own.
#[cfg(any(target_os = "linux", test))]
fn one_of_each(
    processors: impl Iterator<Item = usize>,
    siblings: impl Fn(usize) -> Option<String>,
) -> Vec<Core> {
    let mut seen = std::collections::HashSet::new();
    processors
        .filter(|processor| siblings(*processor).is_none_or(|siblings| seen.insert(siblings)))
        .map(Core)
        .collect()
}

/// The processor's name and its instructions: what was found out on another one, or made for it, does not hold here.
#[must_use]
pub fn processor() -> String {
    let info = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    // As x86 and Arm say them.
    let says = ["model name", "flags", "CPU part", "Features"];
    let lines = says
        .iter()
        .filter_map(|key| info.lines().find(|line| line.starts_with(key)));
    lines.collect::<Vec<_>>().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_threads_of_a_core_are_one() {
        let siblings = |processor: usize| {
            (processor != 3).then(|| format!("{},{}\n", processor % 4, processor % 4 + 4))
        };
        // Processors 1 and 5 are one core, of 4 only the second thread is allowed; 3 and 7 do not say the same.
        let cores = one_of_each([1, 3, 4, 5, 7].into_iter(), siblings);
        assert_eq!(cores, [1, 3, 4, 7].map(Core));
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn a_pinned_thread_has_its_core_alone() {
        let cores = physical();
        let last = *cores.last().unwrap();
        std::thread::spawn(move || {
            assert!(last.pin_this_thread());
            assert_eq!(physical(), [last]);
        })
        .join()
        .unwrap();
        assert_eq!(physical(), cores);
        assert!(!Core(rustix::thread::CpuSet::MAX_CPU - 1).pin_this_thread());
    }
}
