//! That every request which was sent ends, whatever happens in its task.

use std::sync::mpsc::Sender;

use super::Event;
use crate::{
    answer::Answer,
    call::{Ended, How},
    clock::Stamp,
    schedule::Due,
};

/// Says how a request ended. Dropped before, as its task broke off, it says that.
pub(super) struct Report {
    events: Sender<Event>,
    due: Due,
    is_said: bool,
}

impl Report {
    pub(super) fn new(events: Sender<Event>, due: Due) -> Self {
        Self { events, due, is_said: false }
    }

    pub(super) fn ended(mut self, ended: Ended) {
        self.is_said = true;
        self.say(ended);
    }

    fn say(&self, ended: Ended) {
        // Who asked for it waits until it has it.
        let _ = self.events.send(Event::Ended(Box::new(ended)));
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        if !self.is_said {
            self.say(broken(self.due));
        }
    }
}

/// The end of a request that this program failed to send or to read.
pub(super) fn broken(due: Due) -> Ended {
    let message = "the client broke off: a mistake in baton bench, whose message is on standard error";
    Ended { due, how: How::Failed(message.to_owned()), answer: Answer::default(), at: Stamp::now() }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, time::Duration};

    use super::*;

    const DUE: Due = Due { index: 3, intended: Duration::ZERO, was_held: false };

    #[tokio::test]
    async fn a_task_that_panics_has_failed() {
        let (events, inbox) = mpsc::channel();
        let report = Report::new(events, DUE);
        let task = tokio::spawn(async move {
            let _report = report;
            panic!("on purpose");
        });
        assert!(task.await.unwrap_err().is_panic());
        let Ok(Event::Ended(ended)) = inbox.recv() else { panic!("nothing was said") };
        assert!(ended.due == DUE && matches!(ended.how, How::Failed(_)));
    }

    #[test]
    fn what_ended_is_said_once() {
        let (events, inbox) = mpsc::channel();
        Report::new(events, DUE).ended(Ended { how: How::Cancelled, ..broken(DUE) });
        let ended: Vec<Event> = inbox.iter().collect();
        assert!(matches!(&ended[..], [Event::Ended(ended)] if ended.how == How::Cancelled));
    }
}
