//! One client of the null server.

use std::{
    io::{ErrorKind, Read as _, Write as _},
    net::TcpStream,
};

use super::{
    answer::Answer,
    request::{Parsed, Request, parse},
};

/// A socket that never blocks.
#[derive(Debug)]
pub(super) struct Connection {
    pub(super) socket: TcpStream,
    read: Vec<u8>,
    unsent: Vec<u8>,
    pub(super) answer: Option<Answer>,
    /// Ends when all is sent.
    is_ending: bool,
    has_continued: bool,
    /// Whether the kernel was asked to say when more can be sent.
    pub(super) waits_to_send: bool,
}

/// The connection is no more.
#[derive(Debug)]
pub(super) struct Closed;

impl Connection {
    pub(super) fn new(socket: TcpStream) -> Self {
        Self {
            socket,
            read: Vec::new(),
            unsent: Vec::new(),
            answer: None,
            is_ending: false,
            has_continued: false,
            waits_to_send: false,
        }
    }

    /// Reads all there is.
    pub(super) fn fill(&mut self) -> Result<(), Closed> {
        // Nobody needs to send more while an answer is due, so it may wait in the kernel.
        if self.answer.is_some() && self.read.len() > 1 << 20 {
            return Ok(());
        }
        let mut piece = [0; 64 << 10];
        loop {
            match self.socket.read(&mut piece) {
                Ok(0) => return Err(Closed),
                Ok(length) => {
                    self.read.extend_from_slice(&piece[..length]);
                    if length < piece.len() {
                        return Ok(());
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => return Ok(()),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(_) => return Err(Closed),
            }
        }
    }

    /// The next request, when the one before is answered.
    pub(super) fn next_request(&mut self) -> Result<Option<Request>, Closed> {
        if self.answer.is_some() || self.is_ending {
            return Ok(None);
        }
        match parse(&self.read) {
            Parsed::Whole(request, length) => {
                self.read.drain(..length);
                self.has_continued = false;
                Ok(Some(request))
            }
            Parsed::Partial { waits } => {
                if waits && !std::mem::replace(&mut self.has_continued, true) {
                    self.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
                }
                Ok(None)
            }
            Parsed::Wrong { status, why } => {
                let mut out = Vec::new();
                super::head::error(status, why, "", &mut out);
                self.is_ending = true;
                self.send(&out)?;
                Ok(None)
            }
        }
    }

    /// Hands `bytes` to the kernel; what it does not take now is sent when it does.
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), Closed> {
        if !self.unsent.is_empty() {
            self.unsent.extend_from_slice(bytes);
            return Ok(());
        }
        let sent = write(&mut self.socket, bytes)?;
        self.unsent.extend_from_slice(&bytes[sent..]);
        self.end_if_done()
    }

    /// Sends what was left.
    pub(super) fn flush(&mut self) -> Result<(), Closed> {
        let sent = write(&mut self.socket, &self.unsent)?;
        self.unsent.drain(..sent);
        self.end_if_done()
    }

    pub(super) fn has_unsent(&self) -> bool {
        !self.unsent.is_empty()
    }

    fn end_if_done(&self) -> Result<(), Closed> {
        if self.is_ending && self.unsent.is_empty() { Err(Closed) } else { Ok(()) }
    }
}

fn write(socket: &mut TcpStream, bytes: &[u8]) -> Result<usize, Closed> {
    let mut sent = 0;
    while sent < bytes.len() {
        match socket.write(&bytes[sent..]) {
            Ok(length) => sent += length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => break,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(_) => return Err(Closed),
        }
    }
    Ok(sent)
}
