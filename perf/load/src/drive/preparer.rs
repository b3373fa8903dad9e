//! Writes requests before they are due.

use std::{
    io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::mpsc,
    thread::{self, JoinHandle},
    time::Duration,
};

use super::{Event, Job};
use crate::{clock::thread_cpu, content::Answers};

/// A thread that makes prompts, which may take long.
#[derive(Debug)]
pub(super) struct Preparer {
    orders: Option<mpsc::Sender<Order>>,
    thread: Option<JoinHandle<()>>,
}

enum Order {
    Prepare(u32),
    /// What was answered, for prompts that say it again.
    Answer(u32, String),
    Cpu(mpsc::SyncSender<Duration>),
}

impl Preparer {
    pub(super) fn start(job: Job, events: mpsc::Sender<Event>) -> io::Result<Self> {
        let (orders, inbox) = mpsc::channel();
        let body = move || prepare_all(&job, &inbox, &events);
        let thread = thread::Builder::new().name("load-prepare".to_owned()).spawn(body)?;
        Ok(Self { orders: Some(orders), thread: Some(thread) })
    }

    pub(super) fn prepare(&self, index: u32) {
        self.order(Order::Prepare(index));
    }

    pub(super) fn answered(&self, index: u32, text: String) {
        self.order(Order::Answer(index, text));
    }

    pub(super) fn cpu(&self) -> Duration {
        let (tell, told) = mpsc::sync_channel(1);
        self.order(Order::Cpu(tell));
        told.recv().unwrap_or_default()
    }

    fn order(&self, order: Order) {
        if let Some(orders) = &self.orders {
            // It only ends with us, or by a panic that its join shows.
            let _ = orders.send(order);
        }
    }
}

impl Drop for Preparer {
    fn drop(&mut self) {
        drop(self.orders.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

fn prepare(job: &Job, index: u32, answers: &Answers) -> Vec<u8> {
    let planned = &job.plan.requests()[index as usize];
    let prompt = job.content.prompt(&job.plan, planned, answers);
    let id = job.request_id(index);
    job.manner.request(job.server.target(), &id, prompt, planned.output_tokens)
}

fn prepare_all(job: &Job, inbox: &mpsc::Receiver<Order>, events: &mpsc::Sender<Event>) {
    let mut answers = Answers::new();
    while let Ok(order) = inbox.recv() {
        match order {
            Order::Prepare(index) => {
                // What it borrows is only read.
                let request = catch_unwind(AssertUnwindSafe(|| prepare(job, index, &answers))).ok();
                if events.send(Event::Prepared { index, request }).is_err() {
                    return;
                }
            }
            Order::Answer(index, text) => {
                answers.insert(index, text);
            }
            Order::Cpu(tell) => {
                let _ = tell.send(thread_cpu());
            }
        }
    }
}
