//! Sessions: lent to callbacks, or kept.

use std::ffi::c_char;

use network_system::{Message, Result, Session};

use crate::guard::{bytes, missing, outside, run, text};

/// One connection.
// only pointers to it exist, and they point to a `Session`: so C knows nothing of its inside
#[allow(non_camel_case_types)]
pub struct ns_session(());

impl ns_session {
    pub(crate) fn lend(session: &Session) -> *const Self {
        std::ptr::from_ref(session).cast()
    }
}

/// # Safety
/// `session` is NULL, or one that this library gave and that is not freed.
unsafe fn known<'a>(session: *const ns_session) -> Result<&'a Session> {
    // SAFETY: the caller promises it, and what this library gives points to a `Session`.
    unsafe { session.cast::<Session>().as_ref() }.ok_or_else(|| missing("session"))
}

/// From a callback, where waiting is not possible, a full queue is an error; elsewhere it waits.
pub(crate) fn send(session: &Session, data: &[u8]) -> Result<()> {
    if outside("send").is_ok() {
        session.send_blocking(Message::copy_from(data))
    } else {
        session.try_send(Message::copy_from(data))
    }
}

/// Queues a message; the bytes are copied. Waits while the session's queue is full, but in a callback
/// that is an error (-644), and the message is not sent.
///
/// # Safety
/// `session` was given by this library and is not freed; `length` bytes can be read at `data`.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_session_send(
    session: *const ns_session,
    data: *const u8,
    length: usize,
) -> i32 {
    // SAFETY: this function's contract.
    run(|| send(unsafe { known(session) }?, unsafe { bytes(data, length) }?))
}

/// The number of a session, which no other has had in this process; 0 for NULL.
///
/// # Safety
/// As ns_session_send.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_session_id(session: *const ns_session) -> u64 {
    // SAFETY: this function's contract.
    unsafe { known(session) }.map_or(0, Session::id)
}

/// Writes what is queued, then closes. Returns at once.
///
/// # Safety
/// As ns_session_send; `reason` is a C string.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_session_close(
    session: *const ns_session,
    reason: *const c_char,
) -> i32 {
    run(|| {
        // SAFETY: this function's contract.
        let (session, reason) = unsafe { (known(session)?, text(reason, "reason")?) };
        session.close(reason);
        Ok(())
    })
}

/// A handle that outlives the callback. Free it with ns_session_free.
///
/// # Safety
/// As ns_session_send; `out` can be written.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_session_retain(
    session: *const ns_session,
    out: *mut *mut ns_session,
) -> i32 {
    run(|| {
        // SAFETY: this function's contract.
        let (session, out) = unsafe { (known(session)?, out.as_mut()) };
        let out = out.ok_or_else(|| missing("out"))?;
        *out = Box::into_raw(Box::new(session.clone())).cast();
        Ok(())
    })
}

/// Frees a handle of ns_session_retain; the connection stays open. NULL is nothing.
///
/// # Safety
/// The handle is of ns_session_retain and is not used again.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn ns_session_free(session: *mut ns_session) {
    let _ = run(|| {
        if !session.is_null() {
            // SAFETY: made by Box::into_raw, and given back once.
            drop(unsafe { Box::from_raw(session.cast::<Session>()) });
        }
        Ok(())
    });
}
