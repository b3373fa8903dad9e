//! One-sided reads under way.

use rand::Rng;
use tokio::time::Instant;

use super::Net;
use super::blocks::Use;
use super::net::{Fate, LONGEST_FLIGHT, State};
use crate::fabric::{Event, Read};
use crate::ids::PeerId;

/// A read, from being posted to its completion.
pub(super) struct ReadFlight {
    reader: usize,
    owner: usize,
    /// The reader, as the owner's fabric numbers it.
    initiator: PeerId,
    read: Read,
    /// The fetch whose blocks it may write.
    fetch: Use,
    posted: Instant,
    fate: Fate,
    /// Taken from the owner's memory, whatever it held then.
    bytes: Option<Vec<u8>>,
    /// The reader is not told how it ends.
    muted: bool,
}

impl Net {
    pub(super) fn post_read(&self, reader: usize, owner: usize, initiator: PeerId, read: &Read) {
        let mut state = self.lock();
        let fate = state.draw_fate();
        let (read, posted) = (*read, Instant::now());
        state.note(|| format!("read {reader}<{owner} {read:?} {fate:?}"));
        let used = state.ports[reader].blocks.as_ref().and_then(|blocks| blocks.used_as(read.destination));
        let Some(fetch @ Use::Fetching(_)) = used else {
            state.violations.push(format!("node {reader} posts a read into blocks in use as {used:?}"));
            return;
        };
        let (bytes, muted) = (None, false);
        state.reads.push(ReadFlight { reader, owner, initiator, read, fetch, posted, fate, bytes, muted });
        drop(state);
        self.moves();
    }
}

impl State {
    /// The reader of a connection does not want to hear of its reads any more.
    pub(super) fn mute_reads(&mut self, owner: usize, initiator: PeerId) {
        let theirs = |flight: &&mut ReadFlight| (flight.owner, flight.initiator) == (owner, initiator);
        self.reads.iter_mut().filter(theirs).for_each(|flight| flight.muted = true);
        // What is stuck ends with a peer that was cut off, as with one that is dead.
        let State { cuts, reads, .. } = self;
        let over =
            |flight: &ReadFlight| flight.fate == Fate::Stuck && cuts.contains(&(flight.reader, flight.owner));
        reads.retain(|flight| !(flight.muted && over(flight)));
    }

    /// A data path ends: nothing is written here for it any more.
    pub(super) fn sever_reads(&mut self, owner: usize, initiator: PeerId) {
        self.reads.retain(|flight| (flight.owner, flight.initiator) != (owner, initiator));
    }

    /// The reader's fabric is gone, and with it whatever could write its memory for it.
    pub(super) fn end_reads(&mut self, reader: usize) {
        self.reads.retain(|flight| flight.reader != reader);
    }

    /// Moves one read along: an overdue one, or any.
    pub(super) fn step_read(&mut self) {
        let now = Instant::now();
        let overdue =
            |flight: &ReadFlight| now - flight.posted > LONGEST_FLIGHT && flight.fate != Fate::Stuck;
        let overdue = self.reads.iter().position(overdue);
        let index = overdue.unwrap_or_else(|| self.random.random_range(0..self.reads.len()));
        let mut flight = self.reads.swap_remove(index);
        if self.advance_read(&mut flight) {
            self.reads.push(flight);
        }
    }

    /// One stage further; `false` when it is over.
    fn advance_read(&mut self, flight: &mut ReadFlight) -> bool {
        let context = flight.read.context;
        if flight.fate == Fate::Stuck && !self.ports[flight.owner].is_reachable() {
            return false;
        }
        if let Some(bytes) = flight.bytes.take() {
            self.read_into(flight, &bytes);
            if flight.fate == Fate::Stuck {
                return true;
            }
            if flight.fate != Fate::CompletionLost {
                self.report_read(flight, Event::Done(context));
            }
            return false;
        }
        // Some fabrics read a dead process's memory, as long as it is mapped elsewhere.
        let dead = !self.ports[flight.owner].is_alive() && self.random.random_bool(0.5);
        let bytes = self.take_read(flight);
        if flight.fate != Fate::Fails && !dead {
            flight.bytes = Some(bytes);
            return true;
        }
        // Some of it may be here.
        let part = self.random.random_range(0..=bytes.len());
        self.read_into(flight, &bytes[..part]);
        self.report_read(flight, Event::Failed(context, "lost on the way".to_owned()));
        false
    }

    fn take_read(&mut self, flight: &ReadFlight) -> Vec<u8> {
        let mut bytes = vec![0; flight.read.len as usize];
        self.ports[flight.owner].pool.copy_out(flight.read.source as usize, &mut bytes);
        if flight.fate == Fate::Corrupted {
            let index = self.random.random_range(0..bytes.len());
            bytes[index] ^= 1 << self.random.random_range(0..8);
        }
        bytes
    }

    fn read_into(&mut self, flight: &ReadFlight, bytes: &[u8]) {
        let Read { destination, .. } = flight.read;
        self.check(flight.reader, destination..destination + bytes.len() as u64, flight.fetch, "read into");
        self.ports[flight.reader].pool.copy_in(destination as usize, bytes);
    }

    fn report_read(&mut self, flight: &ReadFlight, event: Event) {
        if !flight.muted {
            self.tell(flight.reader, event);
        }
    }
}
