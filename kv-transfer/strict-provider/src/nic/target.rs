//! What happens while the queue is read: the target's half.

use rand::seq::SliceRandom;

use super::progress::status;
use super::{Nic, Region};
use crate::queue::Entry;
use crate::rules::Rule;
use crate::wire::{Address, Frame};
use crate::{memory, sys};

/// Accepted, and not yet carried out.
pub(crate) struct Arrival {
    /// The how-manieth it is.
    number: u64,
    caller: u64,
    from: Address,
    op: u64,
    key: u64,
    address: u64,
    what: What,
}

enum What {
    /// The end of it is in place already; `head` is what is missing.
    Write {
        head: Vec<u8>,
        immediate: Option<u32>,
        ack: bool,
    },
    Read {
        len: u64,
    },
}

impl Nic {
    pub(super) fn hear_callers(&mut self) {
        let ids: Vec<u64> = self.incoming.keys().copied().collect();
        for id in ids {
            let Some(caller) = self.incoming.get_mut(&id) else { continue };
            caller.link.pump();
            for frame in caller.link.frames() {
                self.hear(id, frame);
            }
            if self.incoming.get(&id).is_some_and(|caller| caller.link.over) {
                // What it sent is still on its way.
                self.incoming.remove(&id);
            }
        }
    }

    fn hear(&mut self, id: u64, frame: Frame) {
        let from = self.incoming.get(&id).and_then(|caller| caller.from);
        let number = self.arrived;
        let outcome = match (frame, from) {
            (Frame::Hello { from, to }, None) => return self.greet(id, from, to),
            (Frame::Write { op, delivery, immediate, key, address, payload }, Some(from)) => {
                let arrival = |head| {
                    let what = What::Write { head, immediate, ack: delivery };
                    Arrival { number, caller: id, from, op, key, address, what }
                };
                (op, self.accept_write(key, address, from, payload, delivery, arrival))
            }
            (Frame::Read { op, key, address, len }, Some(from)) => {
                let arrival =
                    Arrival { number, caller: id, from, op, key, address, what: What::Read { len } };
                (op, self.accept(key, address, len, sys::FI_REMOTE_READ, from).map(|()| (arrival, false)))
            }
            (other, _) => return self.log.note(&format!("a caller sent {other:?}")),
        };
        match outcome {
            (op, Ok((arrival, ack))) => {
                self.arrived += 1;
                let held = self.hold(arrival);
                self.arrivals.push(held);
                if ack {
                    self.answer(id, &Frame::Ack { op, status: 0 });
                }
            }
            (op, Err(status)) => {
                self.tally.refused += 1;
                self.answer(id, &Frame::Ack { op, status });
            }
        }
    }

    /// Packets for a queue pair that had our number before us are not for us.
    fn greet(&mut self, id: u64, from: Address, to: Address) {
        let ours = self.door.as_ref().map(|door| door.address);
        let Some(caller) = self.incoming.get_mut(&id) else { return };
        if ours == Some(to) {
            caller.from = Some(from);
        } else {
            self.log.note(&format!("{from:?} calls {to:?}, which is gone"));
            self.incoming.remove(&id);
        }
    }

    /// Checks a write and puts its second half in place at once: whoever polls its last byte is misled.
    fn accept_write(
        &mut self,
        key: u64,
        address: u64,
        from: Address,
        mut payload: Vec<u8>,
        delivery: bool,
        arrival: impl FnOnce(Vec<u8>) -> Arrival,
    ) -> Result<(Arrival, bool), u32> {
        self.accept(key, address, payload.len() as u64, sys::FI_REMOTE_WRITE, from)?;
        let tail = payload.split_off(payload.len() / 2);
        memory::write(address + payload.len() as u64, &tail);
        Ok((arrival(payload), !delivery))
    }

    fn accept(&self, key: u64, address: u64, len: u64, access: u32, from: Address) -> Result<(), u32> {
        if !self.peers.has(&from) {
            if !self.peers.ever.contains(&from) {
                self.log.violation(Rule::UnknownInitiator, &format!("{from:?} is not in the address vector"));
            }
            return Err(status::UNKNOWN_PEER);
        }
        let Some(region) = self.region(key, access) else {
            self.log.violation(Rule::RemoteKey, &format!("{key:#x} of {from:?} opens nothing for this use"));
            return Err(status::BAD_ADDRESS);
        };
        if !region.holds(address, len) {
            self.log
                .violation(Rule::RemoteRange, &format!("{address:#x}+{len} of {from:?} leaves {region:?}"));
            return Err(status::BAD_ADDRESS);
        }
        Ok(())
    }

    fn region(&self, key: u64, access: u32) -> Option<&Region> {
        self.regions.0.get(&key).filter(|region| region.access & u64::from(access) != 0)
    }

    fn answer(&mut self, caller: u64, frame: &Frame) {
        if let Some(caller) = self.incoming.get_mut(&caller) {
            caller.link.send(frame);
            caller.link.pump();
        }
    }

    /// Carries out what was held long enough, in any order.
    pub(super) fn deliver(&mut self) {
        for held in &mut self.arrivals {
            held.rounds = held.rounds.saturating_sub(1);
        }
        let due = self.arrivals.extract_if(.., |held| held.rounds == 0);
        let mut due: Vec<Arrival> = due.map(|held| held.what).collect();
        due.shuffle(&mut self.random);
        for arrival in due {
            self.tally.delivered += 1;
            self.tally.overtaken += u64::from(arrival.number < self.furthest);
            self.furthest = self.furthest.max(arrival.number);
            self.carry_out(arrival);
        }
    }

    fn carry_out(&mut self, arrival: Arrival) {
        let Arrival { caller, op, key, address, what, .. } = arrival;
        match what {
            What::Write { head, immediate, ack } => {
                let there = self.region(key, sys::FI_REMOTE_WRITE).is_some();
                if there {
                    memory::write(address, &head);
                }
                if let Some(immediate) = immediate.filter(|_| there) {
                    let flags = u64::from(sys::FI_REMOTE_CQ_DATA | sys::FI_RMA | sys::FI_REMOTE_WRITE);
                    self.enqueue(Entry { context: 0, flags, data: immediate.into(), error: None });
                }
                if ack {
                    let status = if there { 0 } else { status::BAD_ADDRESS };
                    self.answer(caller, &Frame::Ack { op, status });
                }
            }
            What::Read { len } => match self.region(key, sys::FI_REMOTE_READ) {
                Some(_) => {
                    let mut payload = Vec::new();
                    memory::read(address, len, &mut payload);
                    self.answer(caller, &Frame::Data { op, payload });
                }
                None => self.answer(caller, &Frame::Ack { op, status: status::BAD_ADDRESS }),
            },
        }
    }

    /// A peer that was removed writes here no more, whatever is still held of it.
    pub(super) fn drop_caller(&mut self, address: Address) {
        if !self.peers.has(&address) {
            self.incoming.retain(|_, caller| caller.from != Some(address));
            self.arrivals.retain(|held| held.what.from != address);
        }
    }
}
