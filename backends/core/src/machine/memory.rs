//! The memory of the machine, of the process's control groups, and of the process.
//!
//! The crate `sysinfo` reads the limit of one control group; here the least limit counts, which may be that of any group above.

/// Returns the bytes of memory that this process may have: the machine's memory, or the least limit of its control groups if
/// that is less. None where the system does not say.
#[must_use]
pub fn limit() -> Option<u64> {
    let read = |path: &str| std::fs::read_to_string(path).ok();
    let machine = field_of("/proc/meminfo", "MemTotal:");
    let groups = read("/proc/self/cgroup").unwrap_or_default();
    let limits = limit_files(&groups)
        .into_iter()
        .filter_map(|file| read(&file));
    // "max" is no number.
    let limits = limits.filter_map(|text| text.trim().parse::<u64>().ok());
    machine.into_iter().chain(limits).min()
}

/// Returns the bytes that this process could still take: of the machine's memory, and within the limits of its control groups.
#[must_use]
pub fn available() -> Option<u64> {
    let machine = field_of("/proc/meminfo", "MemAvailable:");
    let of_groups = limit()
        .zip(resident())
        .map(|(limit, resident)| limit.saturating_sub(resident));
    machine.into_iter().chain(of_groups).min()
}

/// Returns the bytes of this process that are in memory.
#[must_use]
pub fn resident() -> Option<u64> {
    field_of("/proc/self/status", "VmRSS:")
}

/// A line of a file of the system that counts in kilobytes, in bytes.
fn field_of(file: &str, name: &str) -> Option<u64> {
    let text = std::fs::read_to_string(file).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib << 10)
}

/// The files that may hold a limit, from the text of `/proc/self/cgroup`: of each group of this process and of all above
/// it, in either version of the file system. In a container the groups' own paths need not be there, the roots are.
fn limit_files(groups: &str) -> Vec<String> {
    let mut files = Vec::new();
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (root, file) = match controllers {
            "" => ("/sys/fs/cgroup", "memory.max"),
            _ if controllers.split(',').any(|name| name == "memory") => {
                ("/sys/fs/cgroup/memory", "memory.limit_in_bytes")
            }
            _ => continue,
        };
        let own = path.trim_matches('/');
        let ends = own.match_indices('/').map(|(at, _)| at).chain([own.len()]);
        files.push(format!("{root}/{file}"));
        files.extend(
            ends.filter(|end| *end > 0)
                .map(|end| format!("{root}/{}/{file}", &own[..end])),
        );
    }
    files
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_looked_for_in_every_group_above_the_process() {
        let first = "4:cpu,cpuacct:/a\n3:hugetlb,memory:/a/b\nnonsense\n";
        let root = "/sys/fs/cgroup/memory";
        let name = "memory.limit_in_bytes";
        let of_first = ["", "/a", "/a/b"].map(|group| format!("{root}{group}/{name}"));
        assert_eq!(limit_files(first), of_first);
        assert_eq!(limit_files("0::/\n"), ["/sys/fs/cgroup/memory.max"]);
        let second = ["", "/system.slice", "/system.slice/e.service"]
            .map(|group| format!("/sys/fs/cgroup{group}/memory.max"));
        assert_eq!(limit_files("0::/system.slice/e.service\n"), second);
    }

    #[test]
    fn this_machine_has_memory() {
        assert!(!cfg!(target_os = "linux") || limit() > Some(1 << 28));
    }
}
