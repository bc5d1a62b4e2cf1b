//! What every entry does: refuse a forked child, catch panics, and keep the error for the thread.

use std::cell::RefCell;
use std::ffi::{CStr, CString, c_char};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use network_system::{Error, ErrorKind, Result};

thread_local! {
    static LAST: RefCell<(i32, CString)> = RefCell::new((0, CString::default()));
}

static FORKED: AtomicBool = AtomicBool::new(false);

extern "C" fn in_child() {
    FORKED.store(true, Ordering::Relaxed);
}

fn watch_forks() {
    static WATCH: Once = Once::new();
    WATCH.call_once(|| {
        // SAFETY: the handler is a plain function that only stores to an atomic, which a forked
        // child may do.
        unsafe { libc::pthread_atfork(None, None, Some(in_child)) };
    });
}

/// Runs an entry, and gives its code.
pub(crate) fn run(entry: impl FnOnce() -> Result<()>) -> i32 {
    watch_forks();
    let result = if FORKED.load(Ordering::Relaxed) {
        Err(Error::new(
            ErrorKind::NotInitialized,
            "use network-system in a forked process",
        )
        .because("its threads do not exist there")
        .advice("call exec after fork, or start the library only in the child"))
    } else {
        catch_unwind(AssertUnwindSafe(entry)).unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Internal, "call network-system").because("it panicked"))
        })
    };
    let Err(error) = result else { return 0 };
    let text = CString::new(error.to_string().replace('\0', " ")).unwrap_or_default();
    // a thread that is ending has no place for it any more, but still gets the code
    let _ = LAST.try_with(|last| *last.borrow_mut() = (error.code(), text));
    error.code()
}

pub(crate) fn last_error() -> *const c_char {
    LAST.try_with(|last| last.borrow().1.as_ptr())
        .unwrap_or(c"".as_ptr())
}

pub(crate) fn last_code() -> i32 {
    LAST.try_with(|last| last.borrow().0).unwrap_or(0)
}

/// A NULL where something must be.
pub(crate) fn missing(what: &'static str) -> Error {
    Error::new(ErrorKind::InvalidArgument, "use an argument").because(format!("{what} is NULL"))
}

/// # Safety
/// `text` is NULL, or ends in a zero byte and stays as it is for `'a`.
pub(crate) unsafe fn text<'a>(text: *const c_char, what: &'static str) -> Result<&'a str> {
    if text.is_null() {
        return Err(missing(what));
    }
    // SAFETY: not NULL, and the caller promises the rest.
    unsafe { CStr::from_ptr(text) }.to_str().map_err(|_| {
        Error::new(ErrorKind::InvalidArgument, "use an argument")
            .because(format!("{what} is not UTF-8"))
    })
}

/// # Safety
/// `data` is NULL, or `length` bytes can be read there for `'a`.
pub(crate) unsafe fn bytes<'a>(data: *const u8, length: usize) -> Result<&'a [u8]> {
    if length == 0 {
        return Ok(&[]);
    }
    if data.is_null() {
        return Err(missing("data"));
    }
    // SAFETY: not NULL, and the caller promises the rest.
    Ok(unsafe { std::slice::from_raw_parts(data, length) })
}

/// Inside a callback: a call that waits would wait for itself.
pub(crate) fn outside(action: &'static str) -> Result<()> {
    if tokio::runtime::Handle::try_current().is_err() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::InvalidArgument, action)
        .because("a callback of this library is running on this thread")
        .advice("call it from another thread"))
}

/// Waits for something on the calling thread.
pub(crate) fn wait<T>(work: impl Future<Output = T>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_time()
        .build()
        .map_err(|error| Error::from_io("start a runtime", error))?;
    let result = runtime.block_on(work);
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(result)
}
