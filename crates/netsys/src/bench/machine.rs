//! The machine and this process: processor, cores, file descriptors, CPU time, memory.

use serde::Serialize;

use super::error::{Error, Result};

/// Where a report was measured.
#[derive(Debug, Clone, Serialize)]
pub struct Machine {
    /// The processor's name, when the system tells.
    pub cpu: Option<String>,
    /// Cores that this process may use.
    pub cores: usize,
    /// Operating system and kernel version.
    pub kernel: String,
    /// Instruction set.
    pub architecture: &'static str,
}

impl Machine {
    /// This machine.
    pub fn here() -> Self {
        Self {
            cpu: cpu_name(),
            cores: std::thread::available_parallelism().map_or(1, usize::from),
            kernel: kernel(),
            architecture: std::env::consts::ARCH,
        }
    }
}

fn cpu_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

#[cfg(unix)]
fn kernel() -> String {
    let name = rustix::system::uname();
    format!(
        "{} {}",
        name.sysname().to_string_lossy(),
        name.release().to_string_lossy()
    )
}

#[cfg(not(unix))]
fn kernel() -> String {
    std::env::consts::OS.to_owned()
}

/// CPU seconds that this process has used so far, all threads, user and system.
#[cfg(unix)]
pub fn cpu_seconds() -> Option<f64> {
    let time = rustix::time::clock_gettime(rustix::time::ClockId::ProcessCPUTime);
    Some(time.tv_sec as f64 + time.tv_nsec as f64 / 1e9)
}

/// CPU seconds that this process has used so far: not known on this platform.
#[cfg(not(unix))]
pub fn cpu_seconds() -> Option<f64> {
    None
}

/// Bytes of memory that process `pid` occupies (RSS); only Linux tells.
pub fn resident_bytes(pid: u32) -> Option<u64> {
    // `smaps_rollup` counts the pages; `status` may lag behind by some pages per core.
    let parse = |text: String, key: &str| {
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix(key).map(str::to_owned))?;
        Some(line.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()? * 1024)
    };
    let read = |file: &str| std::fs::read_to_string(format!("/proc/{pid}/{file}")).ok();
    read("smaps_rollup")
        .and_then(|text| parse(text, "Rss:"))
        .or_else(|| read("status").and_then(|text| parse(text, "VmRSS:")))
}

/// Lets this process open as many files as the system allows; returns how many that is.
#[cfg(unix)]
pub fn raise_file_limit() -> Option<u64> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // A system may refuse its own maximum (macOS does); the limit that counts is read back.
    let _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current
}

/// Lets this process open as many files as the system allows: no limit is known here.
#[cfg(not(unix))]
pub fn raise_file_limit() -> Option<u64> {
    None
}

/// Fails when `connections` do not fit into the limit of open files of one process.
pub fn check_file_limit(connections: usize, limit: Option<u64>) -> Result<()> {
    // Standard streams, listener, epoll, timers, pipes and what a runtime opens.
    const OTHERS: u64 = 64;
    match limit {
        Some(limit) if connections as u64 + OTHERS > limit => Err(Error::Usage(format!(
            "--connections {connections} needs {} open files, but one process may have {limit}; \
             raise the hard limit (`ulimit -Hn`) or use fewer connections",
            connections as u64 + OTHERS
        ))),
        _ => Ok(()),
    }
}

/// The cores that this process may run on, lowest first.
#[cfg(target_os = "linux")]
pub fn allowed_cores() -> Vec<usize> {
    use rustix::thread::{CpuSet, sched_getaffinity};
    sched_getaffinity(None).map_or_else(
        |_| Vec::new(),
        |set| {
            (0..CpuSet::MAX_CPU)
                .filter(|core| set.is_set(*core))
                .collect()
        },
    )
}

/// The cores that this process may run on: not known on this platform.
#[cfg(not(target_os = "linux"))]
pub fn allowed_cores() -> Vec<usize> {
    Vec::new()
}

/// Keeps this thread, and every thread that it starts, on one core.
#[cfg(target_os = "linux")]
pub fn pin(core: usize) -> Result<()> {
    use rustix::thread::{CpuSet, sched_setaffinity};

    use super::error::Context;
    let mut set = CpuSet::new();
    if core >= CpuSet::MAX_CPU {
        return Err(Error::Usage(format!("there is no core {core}")));
    }
    set.set(core);
    sched_setaffinity(None, &set).context(format!("cannot run on core {core}"))
}

/// Keeps this thread on one core: not possible on this platform.
#[cfg(not(target_os = "linux"))]
pub fn pin(_core: usize) -> Result<()> {
    Err(Error::Usage(
        "processes can be pinned to a core on Linux only".into(),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn too_many_connections_name_the_limit() {
        check_file_limit(936, Some(1000)).unwrap();
        check_file_limit(1_000_000, None).unwrap();
        let text = check_file_limit(937, Some(1000)).unwrap_err().to_string();
        assert!(
            text.contains("1001") && text.contains("may have 1000"),
            "{text}"
        );
    }

    #[cfg(target_os = "linux")]
    #[test]
    fn memory_and_cpu_time_of_this_process_are_known() {
        let before = resident_bytes(std::process::id()).unwrap();
        let block = vec![1u8; 8 << 20];
        let after = resident_bytes(std::process::id()).unwrap();
        assert!(after >= before + (4 << 20), "{before} then {after}");
        assert!(block.iter().map(|byte| u64::from(*byte)).sum::<u64>() == 8 << 20);
        assert!(cpu_seconds().unwrap() > 0.0);
        assert!(!allowed_cores().is_empty());
    }
}
