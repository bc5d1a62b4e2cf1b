//! The C interface: opaque handles over the facade, an error code from every call, and no panic that
//! crosses it. The rules for callers stand at the head of the header, `include/network_system.h`.

mod callbacks;
mod client;
mod guard;
mod life;
mod server;
mod session;
mod statistics;

use std::ffi::c_char;

use network_system::ErrorKind;

pub use callbacks::ns_callbacks;
pub use client::*;
pub use server::*;
pub use session::*;
pub use statistics::ns_statistics;

/// The version of this library, such as "0.1.0".
#[unsafe(no_mangle)]
pub extern "C" fn ns_version() -> *const c_char {
    concat!(env!("CARGO_PKG_VERSION"), "\0").as_ptr().cast()
}

/// The sentence about the calling thread's last failed call; empty when none has failed. Valid until
/// the thread's next failing call, or its end. Never NULL.
#[unsafe(no_mangle)]
pub extern "C" fn ns_last_error() -> *const c_char {
    guard::last_error()
}

/// The code of the calling thread's last failed call, or 0.
#[unsafe(no_mangle)]
pub extern "C" fn ns_last_error_code() -> i32 {
    guard::last_code()
}

/// An error code in words, such as "connection refused". Never NULL, valid for ever.
#[unsafe(no_mangle)]
pub extern "C" fn ns_error_text(code: i32) -> *const c_char {
    static TEXTS: std::sync::LazyLock<Vec<(i32, std::ffi::CString)>> =
        std::sync::LazyLock::new(|| {
            let text = |kind: &ErrorKind| {
                let text = std::ffi::CString::new(kind.text()).unwrap_or_default();
                (kind.code(), text)
            };
            ErrorKind::ALL.iter().map(text).collect()
        });
    if code == 0 {
        return c"no error".as_ptr();
    }
    let found = TEXTS.iter().find(|(known, _)| *known == code);
    found.map_or(c"unknown error".as_ptr(), |(_, text)| text.as_ptr())
}
