//! Limits of the operating system for this process.

/// Lets this process open as many files, and so have as many connections, as the system allows;
/// returns how many that is, where a number is known.
#[cfg(unix)]
pub fn raise_file_limit() -> Option<u64> {
    use rustix::process::{Resource, getrlimit, setrlimit};
    let mut limit = getrlimit(Resource::Nofile);
    limit.current = limit.maximum;
    // a system may refuse its own maximum (macOS does); the limit that counts is read back
    let _ = setrlimit(Resource::Nofile, limit);
    getrlimit(Resource::Nofile).current
}

/// Lets this process open as many files as the system allows: no limit is known here.
#[cfg(not(unix))]
pub fn raise_file_limit() -> Option<u64> {
    None
}
