mod hammer;

use std::sync::mpsc;
use std::task::{Poll, Waker};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::sync::oneshot;

use super::*;

const LIMIT: Duration = Duration::from_secs(30);

/// Starts a task on a worker, and tells what it returns.
fn start<T: Send + 'static>(
    workers: &Workers,
    n: usize,
    task: impl Future<Output = T> + Send + 'static,
) -> mpsc::Receiver<T> {
    let (sender, receiver) = mpsc::channel();
    workers.run_on(n, move || {
        let _ = spawn(async move {
            let _ = sender.send(task.await);
        });
    });
    receiver
}

#[test]
fn tasks_are_woken_from_anywhere() {
    let workers = Workers::new(2).unwrap();
    let (sender, receiver) = oneshot::channel();
    let (back, returned) = oneshot::channel();
    let first = start(&workers, 0, async move {
        assert!(is_worker());
        back.send(receiver.await.unwrap() + 1).unwrap();
        // by its own thread
        tokio::task::yield_now().await;
        std::thread::current().name().map(str::to_owned)
    });
    let second = start(&workers, 1, async move { returned.await.unwrap() + 1 });
    sender.send(1).unwrap();
    assert_eq!(second.recv_timeout(LIMIT).unwrap(), 3);
    let name = first.recv_timeout(LIMIT).unwrap().unwrap();
    assert_eq!(name, "netsys-worker-0");
    assert!(!is_worker());
}

#[test]
fn wakes_are_not_lost() {
    for busy_poll in [None, Some(Duration::from_micros(50))] {
        let config = WorkerConfig {
            busy_poll,
            pin: busy_poll.is_some(),
        };
        ping_pong(&Workers::with_config(2, &config).unwrap());
    }
}

fn ping_pong(workers: &Workers) {
    const ROUNDS: u32 = 20_000;
    let (ping, mut pings) = tokio::sync::mpsc::unbounded_channel();
    let (pong, mut pongs) = tokio::sync::mpsc::unbounded_channel();
    let there = start(workers, 0, async move {
        for round in 0..ROUNDS {
            ping.send(round).unwrap();
            assert_eq!(pongs.recv().await, Some(round));
        }
    });
    let _back = start(workers, 1, async move {
        while let Some(round) = pings.recv().await {
            let _ = pong.send(round);
        }
    });
    there.recv_timeout(LIMIT).unwrap();
}

#[test]
fn timers_and_tasks_of_tokio_work_on_it() {
    let workers = Workers::new(1).unwrap();
    let done = start(&workers, 0, async {
        tokio::time::sleep(Duration::from_millis(1)).await;
        let elsewhere = tokio::spawn(async { is_worker() });
        let late = tokio::time::timeout(Duration::from_millis(1), std::future::pending::<()>());
        (elsewhere.await.unwrap(), late.await.is_err())
    });
    assert_eq!(done.recv_timeout(LIMIT).unwrap(), (false, true));
}

#[test]
fn a_panic_ends_one_task_only() {
    let workers = Workers::new(1).unwrap();
    let broken = start(&workers, 0, async {
        panic!("a task");
    });
    workers.run_on(0, || panic!("a start"));
    assert!(broken.recv_timeout(LIMIT).is_err());
    assert_eq!(start(&workers, 0, async { 7 }).recv_timeout(LIMIT), Ok(7));
}

#[test]
fn a_task_that_is_given_up_is_dropped_where_it_runs() {
    struct Tell(mpsc::Sender<bool>);
    impl Drop for Tell {
        fn drop(&mut self) {
            let _ = self.0.send(is_worker());
        }
    }
    let workers = Workers::new(1).unwrap();
    let (sender, dropped) = mpsc::channel();
    let (started, spawned) = mpsc::channel();
    let tell = Tell(sender.clone());
    workers.run_on(0, move || {
        let task = spawn(async move {
            let _tell = tell;
            std::future::pending::<()>().await;
        });
        started.send(task).unwrap();
    });
    let task = spawned.recv_timeout(LIMIT).unwrap();
    task.abort();
    assert_eq!(dropped.recv_timeout(LIMIT), Ok(true));
    // a second time there is nobody, also where another task has its place
    let next = start(&workers, 0, async {
        tokio::task::yield_now().await;
        1
    });
    task.abort();
    assert_eq!(next.recv_timeout(LIMIT), Ok(1));

    // what is left at the end is dropped there, too
    let tell = Tell(sender);
    let _never = start(&workers, 0, async move {
        let _tell = tell;
        std::future::pending::<()>().await;
    });
    let began = std::time::Instant::now();
    drop(workers);
    assert_eq!(dropped.recv_timeout(LIMIT), Ok(true));
    assert!(began.elapsed() >= GRACE, "it might have ended by itself");
}

#[test]
fn panics_at_the_end_of_tasks_are_contained() {
    struct Bomb;
    impl Drop for Bomb {
        fn drop(&mut self) {
            panic!("a destructor");
        }
    }
    let workers = Workers::new(1).unwrap();
    for _ in 0..3 {
        let bomb = Bomb;
        let _never = start(&workers, 0, async move {
            let _bomb = bomb;
            std::future::pending::<()>().await;
        });
    }
    for thread in workers.end() {
        thread.join().unwrap();
    }
}

#[test]
fn works_may_start_others() {
    let workers = Workers::new(1).unwrap();
    let (sender, receiver) = mpsc::channel();
    let same = workers.clone();
    workers.run_on(0, move || {
        same.run_on(0, move || sender.send(is_worker()).unwrap())
    });
    assert_eq!(receiver.recv_timeout(LIMIT), Ok(true));
}

#[test]
fn one_task_does_not_keep_the_others_waiting() {
    let workers = Workers::new(1).unwrap();
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    listener.set_nonblocking(true).unwrap();
    let _accepting = start(&workers, 0, async move {
        let mut listener = Io::new(mio::net::TcpListener::from_std(listener)).unwrap();
        // as if there were always one more
        let again = |_: &mio::net::TcpListener| Ok(((), true));
        loop {
            std::future::poll_fn(|cx| listener.poll_input(cx, again))
                .await
                .unwrap();
        }
    });
    let _wakes = std::net::TcpStream::connect(address).unwrap();
    for n in 0..100 {
        assert_eq!(
            start(&workers, 0, async move { n }).recv_timeout(LIMIT),
            Ok(n)
        );
    }
}

#[test]
fn a_socket_outlives_its_worker_with_an_error() {
    let workers = Workers::new(1).unwrap();
    let (mut io, _there) = connected(&workers);
    let (started, waits) = mpsc::channel();
    let reading = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap();
        runtime.block_on(async {
            started.send(()).unwrap();
            let waiting = io.read_u8().await.unwrap_err();
            let later = io.read_u8().await.unwrap_err();
            [waiting.kind(), later.kind()]
        })
    });
    waits.recv_timeout(LIMIT).unwrap();
    for thread in workers.end() {
        thread.join().unwrap();
    }
    assert_eq!(
        reading.join().unwrap(),
        [std::io::ErrorKind::NotConnected; 2]
    );
}

#[test]
fn threads_end_at_once_when_nothing_runs() {
    let workers = Workers::new(3).unwrap();
    assert_eq!(workers.count(), 3);
    start(&workers, 2, async {}).recv_timeout(LIMIT).unwrap();
    let began = std::time::Instant::now();
    for thread in workers.end() {
        thread.join().unwrap();
    }
    assert!(began.elapsed() < GRACE);
    // too late: it is dropped, at the latest with the workers
    let late = start(&workers, 0, async {});
    drop(workers);
    assert!(late.recv_timeout(LIMIT).is_err());
}

/// A connected pair: one end on the worker, the other a plain socket.
fn connected(workers: &Workers) -> (Io<mio::net::TcpStream>, std::net::TcpStream) {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let there = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    there.set_read_timeout(Some(LIMIT)).unwrap();
    let (here, _) = listener.accept().unwrap();
    here.set_nonblocking(true).unwrap();
    let made = start(workers, 0, async {
        Io::new(mio::net::TcpStream::from_std(here)).unwrap()
    });
    (made.recv_timeout(LIMIT).unwrap(), there)
}

#[test]
fn a_socket_is_told_of_everything_on_any_thread() {
    use std::io::{Read, Write};
    let workers = Workers::new(1).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .build()
        .unwrap();
    for on_worker in [true, false] {
        let (mut io, mut there) = connected(&workers);
        let echo = async move {
            let mut buffer = vec![0; 1000];
            let mut all = 0;
            loop {
                match io.read(&mut buffer).await.unwrap() {
                    0 => break,
                    n => {
                        io.write_all(&buffer[..n]).await.unwrap();
                        all += n;
                    }
                }
            }
            io.shutdown().await.unwrap();
            all
        };
        let done = if on_worker {
            start(&workers, 0, echo)
        } else {
            let (sender, done) = mpsc::channel();
            runtime.spawn(async move { sender.send(echo.await) });
            done
        };
        let sent: Vec<u8> = (0..4_000_000u32).map(|n| n as u8).collect();
        // both directions fill up
        let mut writer = there.try_clone().unwrap();
        let copy = sent.clone();
        let writing = std::thread::spawn(move || {
            writer.write_all(&copy).unwrap();
            writer.shutdown(std::net::Shutdown::Write).unwrap();
        });
        let mut back = Vec::new();
        there.read_to_end(&mut back).unwrap();
        writing.join().unwrap();
        assert!(
            back == sent,
            "{} bytes, on a worker: {on_worker}",
            back.len()
        );
        assert_eq!(done.recv_timeout(LIMIT), Ok(sent.len()));
    }
}

#[test]
fn a_socket_that_changes_its_task_wakes_the_new_one() {
    use std::io::Write;
    let workers = Workers::new(1).unwrap();
    let (mut io, mut there) = connected(&workers);
    // polled once by somebody else
    let mut cx = std::task::Context::from_waker(Waker::noop());
    let nothing = |_: &mio::net::TcpStream| -> std::io::Result<((), bool)> {
        Err(std::io::ErrorKind::WouldBlock.into())
    };
    assert!(matches!(io.poll_input(&mut cx, nothing), Poll::Pending));
    let read = start(&workers, 0, async move { io.read_u8().await.unwrap() });
    there.write_all(b"x").unwrap();
    assert_eq!(read.recv_timeout(LIMIT), Ok(b'x'));
}

#[test]
fn elsewhere_no_socket_is_watched() {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    listener.set_nonblocking(true).unwrap();
    let error = Io::new(mio::net::TcpListener::from_std(listener))
        .err()
        .unwrap();
    assert_eq!(error.kind(), std::io::ErrorKind::Unsupported);
}
