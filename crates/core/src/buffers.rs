//! Buffers that connections borrow from their thread only while they hold bytes, so that an idle
//! connection owns none.

use std::cell::RefCell;

use bytes::BytesMut;

/// What one read may bring at most: large enough that system calls do not dominate, small enough
/// for the second-level cache.
pub(crate) const READ: usize = 256 * 1024;
/// The size of a page; where it is another one, alignment to this one does no harm.
pub(crate) const PAGE: usize = 4096;
/// A buffer that has grown beyond this is given back to the allocator.
const KEEP: usize = 2 * READ;
/// Buffers kept per thread: one to read, one to write, and spares for connections that wait in
/// the middle of a batch.
const SPARES: usize = 4;

thread_local! {
    static POOL: RefCell<Vec<BytesMut>> = const { RefCell::new(Vec::new()) };
}

/// An empty buffer; its capacity may be 0.
pub(crate) fn take() -> BytesMut {
    POOL.try_with(|pool| pool.try_borrow_mut().ok().and_then(|mut pool| pool.pop()))
        .ok()
        .flatten()
        .unwrap_or_default()
}

/// Gives a buffer back; what it holds is lost.
pub(crate) fn put(mut buffer: BytesMut) {
    buffer.clear();
    if buffer.capacity() == 0 || buffer.capacity() > KEEP {
        return;
    }
    // at the end of a thread the pool may be gone already
    let _ = POOL.try_with(|pool| {
        if let Ok(mut pool) = pool.try_borrow_mut()
            && pool.len() < SPARES
        {
            pool.push(buffer);
        }
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn buffers_come_back_empty_and_bounded() {
        let mut buffer = BytesMut::with_capacity(READ);
        buffer.extend_from_slice(b"secret");
        let at = buffer.as_ptr();
        put(buffer);
        let again = take();
        assert!(again.is_empty());
        assert_eq!(again.as_ptr(), at);
        put(BytesMut::with_capacity(KEEP + 1));
        assert!(take().capacity() <= KEEP);
        for _ in 0..2 * SPARES {
            put(BytesMut::with_capacity(1));
        }
        POOL.with_borrow(|pool| assert_eq!(pool.len(), SPARES));
    }
}
