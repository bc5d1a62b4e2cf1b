//! A soak: pool, request pool, client and circuit breaker over three servers that are killed again and
//! again, every answer verified, memory and descriptors watched. Linux.
//!
//! `scripts/soak.sh [MINUTES] [--json]`

mod load;
mod question;
mod servers;
mod tally;
mod watch;

use std::process::ExitCode;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use load::Loads;
use servers::Servers;
use tokio::time::{Instant, MissedTickBehavior, interval};
use watch::Sample;

type Result<T, E = Box<dyn std::error::Error + Send + Sync>> = std::result::Result<T, E>;

const USAGE: &str = "usage: scripts/soak.sh [MINUTES] [--json]   (30 minutes by default)";
const SECOND: Duration = Duration::from_secs(1);
/// After the last kill everything must be well again within this time, and stay so for as long.
const RECOVERY: Duration = Duration::from_secs(5);

#[tokio::main]
async fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    if let [serve, url] = &arguments[..]
        && serve == "serve"
    {
        return ended(servers::serve(url).await.map(|()| true));
    }
    let as_json = arguments.iter().any(|argument| argument == "--json");
    let mut rest = arguments.iter().filter(|argument| *argument != "--json");
    let minutes = rest.next().map_or(Ok(30.0), |minutes| minutes.parse());
    match (
        minutes.map(|minutes: f64| Duration::try_from_secs_f64(minutes * 60.0)),
        rest.next(),
    ) {
        (Ok(Ok(time)), None) => ended(soak(time, as_json).await),
        _ => {
            eprintln!("{USAGE}");
            ExitCode::from(2)
        }
    }
}

fn ended(result: Result<bool>) -> ExitCode {
    match result {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

/// Whether all went well.
async fn soak(time: Duration, as_json: bool) -> Result<bool> {
    let servers = Servers::start()?;
    let (urls, kills) = (servers.urls(), servers.kills());
    for url in &urls {
        wait_for(url).await?;
    }
    let start = Sample::take()?;
    let loads = Loads::start(&urls).await?;
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let torment = tokio::spawn(servers.torment(stopped));

    let began = Instant::now();
    let mut samples = Vec::with_capacity(time.as_secs() as usize + 1);
    let mut seconds = interval(SECOND);
    seconds.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut stuck = Vec::new();
    let mut before: Vec<u64> = vec![0; loads.tallies.len()];
    seconds.tick().await;
    while began.elapsed() < time && !torment.is_finished() {
        seconds.tick().await;
        let now = Sample::take()?;
        samples.push(now);
        if samples.len() % 10 == 0 {
            let second = began.elapsed().as_secs();
            watch::report(second, kills.load(Relaxed), now, &loads, as_json);
            for (tally, before) in loads.tallies.iter().zip(&mut before) {
                if tally.ok() == std::mem::replace(before, tally.ok()) {
                    stuck.push(format!(
                        "{} answered nothing in 10 s, at {second} s",
                        tally.name
                    ));
                }
            }
        }
    }
    stop.send_replace(true);
    let servers = torment.await??;

    let mut failures = stuck;
    failures.extend(recover(&loads).await);
    let second = began.elapsed().as_secs();
    watch::report(
        second,
        kills.load(Relaxed),
        Sample::take()?,
        &loads,
        as_json,
    );
    summary(&loads);
    failures.extend(close(loads, start).await?);
    servers.end().await?;
    if watch::has_grown(&samples) {
        failures.push("memory or descriptors have grown".to_owned());
    }
    for failure in &failures {
        println!("FAILED: {failure}");
    }
    if failures.is_empty() {
        println!(
            "passed: {} s, {} kills",
            began.elapsed().as_secs(),
            kills.load(Relaxed)
        );
    }
    Ok(failures.is_empty())
}

/// Until a server listens.
async fn wait_for(url: &str) -> Result<()> {
    let deadline = Instant::now() + 10 * SECOND;
    while let Err(error) = network_system::connect(url).await {
        if Instant::now() > deadline {
            return Err(error.into());
        }
        tokio::time::sleep(SECOND / 50).await;
    }
    Ok(())
}

/// With all servers up and some time to notice that, there are no errors.
async fn recover(loads: &Loads) -> Vec<String> {
    tokio::time::sleep(RECOVERY).await;
    let before: Vec<_> = loads.tallies.iter().map(|t| (t.ok(), t.failed())).collect();
    tokio::time::sleep(RECOVERY).await;
    let mut failures = Vec::new();
    for (tally, (ok, failed)) in loads.tallies.iter().zip(before) {
        let errors = tally.failed() - failed;
        if errors > 0 || tally.ok() == ok {
            failures.push(format!("{} has not recovered: {errors} errors", tally.name));
        }
    }
    failures
}

fn summary(loads: &Loads) {
    for tally in &loads.tallies {
        println!("{:>9}: {} ok, {:?}", tally.name, tally.ok(), tally.errors());
    }
    let sent = loads.messages.sent.load(Relaxed);
    let kept = loads.messages.kept.load(Relaxed);
    println!(
        "{:>9}: {sent} sent, {kept} of them without a connection",
        "messages"
    );
    println!("{:>9}: {:?}", "pool", loads.pool.statistics());
    println!("{:>9}: {:?}", "breaker", loads.breaker.statistics());
}

/// Closes everything: descriptors and tasks must be as they were at the start.
async fn close(loads: Loads, start: Sample) -> Result<Vec<String>> {
    let mut failures = Vec::new();
    for tally in &loads.tallies {
        if tally.wrong() > 0 {
            failures.push(format!(
                "{}: {} defects, see above",
                tally.name,
                tally.wrong()
            ));
        }
    }
    if !loads.end().await? {
        failures.push("a connection was not returned, or a message waits".to_owned());
    }
    let deadline = Instant::now() + 10 * SECOND;
    loop {
        let end = Sample::take()?;
        if (end.files, end.tasks) == (start.files, start.tasks) {
            println!(
                "descriptors and tasks at the end as at the start: {} and {}",
                end.files, end.tasks
            );
            return Ok(failures);
        }
        if Instant::now() > deadline {
            failures.push(format!(
                "{} descriptors and {} tasks at the start, {} and {} at the end",
                start.files, start.tasks, end.files, end.tasks
            ));
            return Ok(failures);
        }
        tokio::time::sleep(SECOND / 50).await;
    }
}
