//! Tells on standard error how a run is going.

use std::{
    io::{self, IsTerminal as _, Write as _},
    sync::{
        Arc,
        mpsc::{self, RecvTimeoutError},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use crate::{Glance, Live, Stamp};

/// Where a run ends, as far as known beforehand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bounds {
    /// Requests of its plan.
    pub requests: u32,
    /// No request is sent after this time.
    pub duration: Option<Duration>,
    /// The last request whose time is known is sent then.
    pub last_start: Option<Duration>,
}

/// Shows progress until it is dropped: on a terminal a line that changes, else a line every ten seconds.
#[derive(Debug)]
pub struct Progress {
    stop: Option<mpsc::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

const ON_TERMINALS: Duration = Duration::from_millis(500);
const ELSEWHERE: Duration = Duration::from_secs(10);

impl Progress {
    /// Of the run that writes `live`.
    ///
    /// # Errors
    /// The system gives no thread.
    pub fn start(live: Arc<Live>, bounds: Bounds, label: String) -> io::Result<Self> {
        let (stop, stopped) = mpsc::channel();
        let body = move || match io::stderr().is_terminal() {
            true => on_terminal(&live, bounds, label, &stopped),
            false => in_lines(&live, bounds, &label, &stopped),
        };
        let thread = thread::Builder::new().name("progress".to_owned()).spawn(body)?;
        Ok(Self { stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn on_terminal(live: &Live, bounds: Bounds, label: String, stopped: &mpsc::Receiver<()>) {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr());
    // The template is a constant; a mistake in it shows in the first test.
    if let Ok(style) = ProgressStyle::with_template("{prefix} {spinner} {wide_msg}") {
        bar.set_style(style);
    }
    bar.set_prefix(label);
    while wait(stopped, ON_TERMINALS) {
        bar.set_message(line(&live.glance(Stamp::now()), bounds));
        bar.tick();
    }
    bar.finish_and_clear();
}

fn in_lines(live: &Live, bounds: Bounds, label: &str, stopped: &mpsc::Receiver<()>) {
    while wait(stopped, ELSEWHERE) {
        // Who closed standard error does not want to know.
        let _ = writeln!(io::stderr(), "{label}: {}", line(&live.glance(Stamp::now()), bounds));
    }
}

/// Whether it goes on after `time`.
fn wait(stopped: &mpsc::Receiver<()>, time: Duration) -> bool {
    stopped.recv_timeout(time) == Err(RecvTimeoutError::Timeout)
}

fn line(glance: &Glance, bounds: Bounds) -> String {
    let mut parts = vec![
        format!("{} s", glance.elapsed.as_secs()),
        format!("{}/{} sent", glance.sent, bounds.requests),
        format!("{:.1}/s", f64::from(glance.complete) / glance.elapsed.as_secs_f64().max(1e-3)),
        format!("{} in flight", glance.in_flight),
    ];
    if glance.failed > 0 {
        parts.push(format!("{} FAILED", glance.failed));
    }
    for (name, times) in [("TTFT", glance.ttft), ("gap", glance.itl)] {
        if let Some([p50, p99]) = times {
            parts.push(format!("{name} p50 {} p99 {} ms", millis(p50), millis(p99)));
        }
    }
    if let Some(left) = time_left(glance, bounds) {
        parts.push(format!("{} s left", left.as_secs()));
    }
    parts.join(" · ")
}

fn millis(time: Duration) -> String {
    let ms = time.as_secs_f64() * 1e3;
    if ms < 100.0 { format!("{ms:.1}") } else { format!("{ms:.0}") }
}

/// By the plan's times where it has them, else by how fast requests have ended.
fn time_left(glance: &Glance, bounds: Bounds) -> Option<Duration> {
    let by_clock = [bounds.duration, bounds.last_start].into_iter().flatten().min();
    if let Some(end) = by_clock {
        return Some(end.saturating_sub(glance.elapsed));
    }
    let ended = glance.sent.checked_sub(glance.in_flight).filter(|ended| *ended > 0)?;
    let left = bounds.requests.saturating_sub(ended);
    Some(glance.elapsed.mul_f64(f64::from(left) / f64::from(ended)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_says_how_it_goes_and_how_long_it_takes() {
        let ms = Duration::from_millis;
        let glance = Glance {
            elapsed: ms(4000),
            sent: 30,
            in_flight: 10,
            complete: 19,
            failed: 1,
            ttft: Some([ms(52), ms(1234)]),
            itl: None,
        };
        let bounds = Bounds { requests: 100, ..Bounds::default() };
        let expected =
            "4 s · 30/100 sent · 4.8/s · 10 in flight · 1 FAILED · TTFT p50 52.0 p99 1234 ms · 16 s left";
        assert_eq!(line(&glance, bounds), expected);
        let timed = Bounds { duration: Some(ms(60_000)), last_start: Some(ms(9_000)), ..bounds };
        assert!(line(&glance, timed).ends_with("· 5 s left"));
        assert!(!line(&Glance::default(), bounds).contains("left"));
    }
}
