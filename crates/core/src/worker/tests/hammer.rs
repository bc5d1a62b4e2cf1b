//! Wake-ups of tasks and sockets from many threads at once, again and again: none is lost.

use std::io::{Read, Write};
use std::pin::Pin;
use std::sync::atomic::Ordering::{Acquire, Release};
use std::sync::atomic::{AtomicBool, AtomicU64};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::*;

/// Wake-ups of one task from several threads at once, while its socket has events, too: none is lost.
#[test]
fn a_task_is_woken_by_threads_and_its_socket_at_once() {
    const ROUNDS: u64 = 20_000;
    let workers = Workers::new(2).unwrap();
    let (io, mut there) = connected(&workers);
    let wakers = Arc::new(Mutex::new(None::<Waker>));
    let counts: [Arc<AtomicU64>; 3] = Default::default();
    let done = Arc::new(AtomicBool::new(false));
    // each of the others goes on only when the task has seen what it has done
    let seen: [Arc<AtomicU64>; 3] = Default::default();
    let (slot, want, told) = (wakers.clone(), counts.clone(), seen.clone());
    let task = start(&workers, 0, async move {
        let mut io = io;
        let mut all = 0;
        std::future::poll_fn(|cx| {
            *slot.lock().unwrap() = Some(cx.waker().clone());
            let mut buffer = [0; 16];
            loop {
                let mut into = ReadBuf::new(&mut buffer);
                match Pin::new(&mut io).poll_read(cx, &mut into) {
                    Poll::Ready(result) => {
                        result.unwrap();
                        let n = into.filled().len();
                        if n == 0 {
                            return Poll::Ready(());
                        }
                        all += n as u64;
                        let back = into.filled().to_vec();
                        let written = Pin::new(&mut io).poll_write(cx, &back);
                        assert!(matches!(written, Poll::Ready(Ok(written)) if written == n));
                    }
                    Poll::Pending => break,
                }
            }
            for (want, told) in want.iter().zip(&told) {
                told.store(want.load(Acquire), Release);
            }
            Poll::Pending
        })
        .await;
        all
    });
    // the task runs, so its waker is known
    let mut back = [0; 4];
    there.write_all(b"ping").unwrap();
    there.read_exact(&mut back).unwrap();
    let threads: Vec<_> = counts
        .into_iter()
        .zip(seen)
        .map(|(count, seen)| {
            let (wakers, done) = (wakers.clone(), done.clone());
            std::thread::spawn(move || {
                for n in 1..=ROUNDS {
                    count.store(n, Release);
                    let waker = wakers.lock().unwrap().clone();
                    waker.unwrap().wake();
                    let since = std::time::Instant::now();
                    while seen.load(Acquire) < n {
                        assert!(since.elapsed() < LIMIT, "a wake-up was lost in round {n}");
                        std::thread::yield_now();
                    }
                    if done.load(Relaxed) {
                        return n;
                    }
                }
                ROUNDS
            })
        })
        .collect();
    let mut rounds = 4;
    let began = std::time::Instant::now();
    while threads.iter().any(|thread| !thread.is_finished()) {
        there.write_all(b"ping").unwrap();
        there.read_exact(&mut back).unwrap();
        rounds += 4;
        if began.elapsed() > LIMIT / 3 {
            done.store(true, Relaxed);
        }
    }
    for thread in threads {
        assert!(thread.join().unwrap() > 100);
    }
    there.shutdown(std::net::Shutdown::Write).unwrap();
    assert_eq!(task.recv_timeout(LIMIT), Ok(rounds));
}

/// Sockets that move between the worker and other threads, and are waited for at each place just when
/// something comes: no event is lost.
#[test]
fn a_socket_that_moves_between_threads_misses_nothing() {
    let workers = Workers::new(1).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    let (mut io, mut there) = connected(&workers);
    let (ask, asked) = mpsc::channel::<()>();
    let writing = std::thread::spawn(move || {
        let mut n: u32 = 0;
        while asked.recv().is_ok() {
            // now and then a bit later
            for _ in 0..n % 97 {
                std::hint::spin_loop();
            }
            there.write_all(b"x").unwrap();
            n += 1;
        }
        n
    });
    for n in 0..10_000 {
        ask.send(()).unwrap();
        let read = async move {
            let byte = io.read_u8().await.unwrap();
            assert_eq!(byte, b'x');
            io
        };
        io = match n % 3 {
            0 => start(&workers, 0, read).recv_timeout(LIMIT).unwrap(),
            1 => {
                let (sender, receiver) = mpsc::channel();
                runtime.spawn(async move { sender.send(read.await) });
                receiver.recv_timeout(LIMIT).unwrap()
            }
            _ => tokio::runtime::Builder::new_current_thread()
                .enable_time()
                .build()
                .unwrap()
                .block_on(async { tokio::time::timeout(LIMIT, read).await.unwrap() }),
        };
    }
    drop(ask);
    assert_eq!(writing.join().unwrap(), 10_000);
}

/// Both directions full and another thread for each end: no room to write is missed.
#[test]
fn a_socket_on_another_thread_misses_no_room() {
    let workers = Workers::new(1).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(1)
        .build()
        .unwrap();
    for _ in 0..40 {
        let (mut io, mut there) = connected(&workers);
        let (sender, done) = mpsc::channel();
        runtime.spawn(async move {
            io.write_all(&vec![7; 6_000_000]).await.unwrap();
            sender.send(()).unwrap();
        });
        let mut back = Vec::new();
        there.read_to_end(&mut back).unwrap();
        assert_eq!(back.len(), 6_000_000);
        done.recv_timeout(LIMIT).unwrap();
    }
}
