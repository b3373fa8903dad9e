//! One thread that reads, waits and writes.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    io::{self, PipeReader},
    net::{TcpListener, TcpStream},
    num::NonZeroU64,
    sync::{Arc, Mutex, PoisonError},
};

use rustix::{
    buffer::spare_capacity,
    event::{PollFd, PollFlags, Timespec, epoll, poll},
    fd::OwnedFd,
    io::Errno,
    thread::set_current_timer_slack,
};

use super::{
    Truth,
    connection::{Closed, Connection},
    ledger::Ledger,
    routes::{self, Reply},
};
use crate::clock::{Stamp, nanos};

const LISTENER: u64 = 0;
const STOP: u64 = 1;
const FIRST_CONNECTION: u64 = 2;
/// Beyond them, connections are closed as they come.
const MOST_CONNECTIONS: usize = 16 << 10;
/// What a wake-up may be late by, for the kernel's comfort.
const TIMER_SLACK_NS: u64 = 1_000;

pub(super) struct Engine {
    truth: Truth,
    listener: TcpListener,
    epoll: OwnedFd,
    connections: HashMap<u64, Connection>,
    /// Numbers of connections are never used again.
    next_connection: u64,
    /// Which answers go on when. One entry an answer.
    due: BinaryHeap<Reverse<(Stamp, u64)>>,
    /// When the first request came.
    began: Option<Stamp>,
    requests: u64,
    ledger: Arc<Mutex<Ledger>>,
    /// Of what is being written; kept for its memory.
    out: Vec<u8>,
}

impl Engine {
    pub(super) fn new(
        truth: Truth,
        listener: TcpListener,
        stop: &PipeReader,
        ledger: Arc<Mutex<Ledger>>,
    ) -> io::Result<Self> {
        listener.set_nonblocking(true)?;
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC)?;
        epoll::add(&epoll, &listener, epoll::EventData::new_u64(LISTENER), epoll::EventFlags::IN)?;
        epoll::add(&epoll, stop, epoll::EventData::new_u64(STOP), epoll::EventFlags::IN)?;
        Ok(Self {
            truth,
            listener,
            epoll,
            connections: HashMap::new(),
            next_connection: FIRST_CONNECTION,
            due: BinaryHeap::new(),
            began: None,
            requests: 0,
            ledger,
            out: Vec::new(),
        })
    }

    /// Serves until the other end of the pipe is closed.
    pub(super) fn run(mut self) -> io::Result<()> {
        // Without it wake-ups are late by up to 50 µs; that is no reason not to serve.
        let _ = set_current_timer_slack(NonZeroU64::new(TIMER_SLACK_NS));
        let mut events = Vec::with_capacity(256);
        loop {
            self.send_due();
            if !self.wait()? {
                continue;
            }
            events.clear();
            epoll::wait(&self.epoll, spare_capacity(&mut events), Some(&Timespec { tv_sec: 0, tv_nsec: 0 }))?;
            for event in events.drain(..) {
                match event.data.u64() {
                    LISTENER => self.accept()?,
                    STOP => return Ok(()),
                    connection => self.serve(connection, event.flags),
                }
                // Whose token is due does not wait for others' requests.
                self.send_due();
            }
        }
    }

    /// Until a socket is ready or something is due; whether it is the former.
    fn wait(&self) -> io::Result<bool> {
        let left = self.due.peek().map(|Reverse((due, _))| nanos(due.since(Stamp::now())));
        // `poll` waits to the nanosecond, where `epoll_wait` rounds up to a millisecond.
        let timeout = left.map(|left| Timespec {
            tv_sec: (left / 1_000_000_000).cast_signed(),
            tv_nsec: (left % 1_000_000_000).cast_signed(),
        });
        match poll(&mut [PollFd::new(&self.epoll, PollFlags::IN)], timeout.as_ref()) {
            Ok(ready) => Ok(ready > 0),
            Err(Errno::INTR) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    fn accept(&mut self) -> io::Result<()> {
        loop {
            match self.listener.accept() {
                Ok((socket, _)) if self.connections.len() < MOST_CONNECTIONS => self.add(socket)?,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                // A client that went before it was accepted.
                Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn add(&mut self, socket: TcpStream) -> io::Result<()> {
        socket.set_nonblocking(true)?;
        socket.set_nodelay(true)?;
        let number = self.next_connection;
        self.next_connection += 1;
        epoll::add(&self.epoll, &socket, epoll::EventData::new_u64(number), epoll::EventFlags::IN)?;
        self.connections.insert(number, Connection::new(socket));
        Ok(())
    }

    fn serve(&mut self, number: u64, flags: epoll::EventFlags) {
        let ended = epoll::EventFlags::HUP | epoll::EventFlags::ERR;
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let mut result = if flags.intersects(ended) { Err(Closed) } else { Ok(()) };
        if flags.contains(epoll::EventFlags::OUT) {
            result = result.and_then(|()| connection.flush());
        }
        if flags.contains(epoll::EventFlags::IN) {
            result = result.and_then(|()| connection.fill());
        }
        let result = result.and_then(|()| self.take_requests(number));
        self.settle(number, result);
    }

    /// Begins what the connection has asked for.
    fn take_requests(&mut self, number: u64) -> Result<(), Closed> {
        while let Some(connection) = self.connections.get_mut(&number)
            && let Some(request) = connection.next_request()?
        {
            let now = Stamp::now();
            self.out.clear();
            match routes::reply(&self.truth, &request, self.requests, now, &self.ledger, &mut self.out) {
                Reply::Done { counts } => {
                    self.requests += u64::from(counts);
                    connection.send(&self.out)?;
                }
                Reply::Answer(answer) => {
                    self.requests += 1;
                    self.began.get_or_insert(now);
                    connection.answer = Some(*answer);
                    self.schedule(number);
                }
            }
        }
        Ok(())
    }

    fn schedule(&mut self, number: u64) {
        let (Some(began), Some(answer)) =
            (self.began, self.connections.get(&number).and_then(|it| it.answer.as_ref()))
        else {
            return;
        };
        let work = answer.next_after(&self.truth);
        let due = match &self.truth.freeze {
            None => answer.arrived + work,
            Some(freeze) => freeze.end_of(began, answer.arrived, work),
        };
        self.due.push(Reverse((due, number)));
    }

    fn send_due(&mut self) {
        while let Some(Reverse((due, number))) = self.due.peek().copied()
            && due <= Stamp::now()
        {
            self.due.pop();
            let result = self.send_next(number);
            self.settle(number, result);
        }
    }

    fn send_next(&mut self, number: u64) -> Result<(), Closed> {
        let Some(connection) = self.connections.get_mut(&number) else { return Ok(()) };
        let Some(answer) = &mut connection.answer else { return Ok(()) };
        self.out.clear();
        let is_last = answer.write_next(&self.truth, Stamp::now(), &mut self.out);
        if is_last && let Some(answer) = connection.answer.take() {
            self.ledger.lock().unwrap_or_else(PoisonError::into_inner).push(answer.sent);
        }
        connection.send(&self.out)?;
        if is_last {
            return self.take_requests(number);
        }
        self.schedule(number);
        Ok(())
    }

    /// Closes the connection, or watches what it now waits for.
    fn settle(&mut self, number: u64, result: Result<(), Closed>) {
        let Some(connection) = self.connections.get_mut(&number) else { return };
        let is_wanted = connection.has_unsent();
        let result = match std::mem::replace(&mut connection.waits_to_send, is_wanted) == is_wanted {
            true => result,
            false => result.and_then(|()| watch(&self.epoll, number, connection)),
        };
        if result.is_err()
            && let Some(Connection { answer: Some(answer), .. }) = self.connections.remove(&number)
        {
            self.ledger.lock().unwrap_or_else(PoisonError::into_inner).push(answer.sent);
        }
    }
}

/// Has the kernel say when more can be sent, while there is something left.
fn watch(epoll: &OwnedFd, number: u64, connection: &Connection) -> Result<(), Closed> {
    let events = match connection.waits_to_send {
        true => epoll::EventFlags::IN | epoll::EventFlags::OUT,
        false => epoll::EventFlags::IN,
    };
    epoll::modify(epoll, &connection.socket, epoll::EventData::new_u64(number), events).map_err(|_| Closed)
}
