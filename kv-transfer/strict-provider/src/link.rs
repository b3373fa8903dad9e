//! A connection to another process's provider, and the door that others come in by.

use std::io::{ErrorKind, Read, Write};
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixListener, UnixStream};

use crate::wire::{Address, Frame};

/// Read at most so much of a link in one round of progress.
const READ_BYTES: usize = 1 << 20;
/// No further operation is put on a link that has so much to send.
const FULL_BYTES: usize = 1 << 20;

/// Frames in both directions; never waits.
#[derive(Debug)]
pub(crate) struct Link {
    pub(crate) stream: UnixStream,
    out: Vec<u8>,
    sent: usize,
    input: Vec<u8>,
    /// The other end is gone, or sends nonsense. What it had sent before is still to be had.
    pub(crate) over: bool,
}

impl Link {
    pub(crate) fn new(stream: UnixStream) -> std::io::Result<Self> {
        stream.set_nonblocking(true)?;
        Ok(Self { stream, out: Vec::new(), sent: 0, input: Vec::new(), over: false })
    }

    /// Connects to a provider and says who calls.
    pub(crate) fn call(from: Address, to: Address) -> std::io::Result<Self> {
        let name = SocketAddr::from_abstract_name(to.socket())?;
        let mut link = Self::new(UnixStream::connect_addr(&name)?)?;
        link.send(&Frame::Hello { from, to });
        Ok(link)
    }

    pub(crate) fn send(&mut self, frame: &Frame) {
        frame.encode(&mut self.out);
    }

    pub(crate) fn is_full(&self) -> bool {
        self.out.len() - self.sent >= FULL_BYTES
    }

    pub(crate) fn has_unsent(&self) -> bool {
        self.sent < self.out.len()
    }

    /// Sends and receives what the kernel takes and has.
    pub(crate) fn pump(&mut self) {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                // What the other end wrote before it went is still read below.
                Err(_) => self.sent = self.out.len(),
            }
        }
        if self.sent == self.out.len() {
            self.out.clear();
            self.sent = 0;
        }
        let mut chunk = vec![0; 64 << 10];
        let limit = self.input.len() + READ_BYTES;
        while self.input.len() < limit {
            match self.stream.read(&mut chunk) {
                Ok(0) => return self.over = true,
                Ok(count) => self.input.extend_from_slice(&chunk[..count]),
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => return,
                Err(_) => return self.over = true,
            }
        }
    }

    /// Whole frames that arrived.
    pub(crate) fn frames(&mut self) -> Vec<Frame> {
        let (mut frames, mut at) = (Vec::new(), 0);
        loop {
            match Frame::decode(&self.input[at..]) {
                Ok(Some((frame, len))) => {
                    frames.push(frame);
                    at += len;
                }
                Ok(None) => break,
                Err(()) => {
                    self.over = true;
                    break;
                }
            }
        }
        self.input.drain(..at);
        frames
    }
}

/// Binds an address of the wanted number, or of one that is free. Not by the seed: a restarted process has another key.
pub(crate) fn listen(qpn: Option<u16>) -> std::io::Result<(UnixListener, Address)> {
    const TRIES: usize = 64;
    let mut last = None;
    for _ in 0..TRIES {
        let address = Address::new(qpn.unwrap_or_else(rand::random), rand::random());
        match UnixListener::bind_addr(&SocketAddr::from_abstract_name(address.socket())?) {
            Ok(listener) => {
                listener.set_nonblocking(true)?;
                return Ok((listener, address));
            }
            Err(error) => last = Some(error),
        }
        if qpn.is_some() {
            break;
        }
    }
    Err(last.unwrap_or_else(|| ErrorKind::AddrInUse.into()))
}
