//! One end, opened and used through its tables as C would.

use std::cell::UnsafeCell;
use std::ffi::{c_int, c_void};
use std::ops::Range;
use std::ptr;
use std::sync::Arc;

use crate::objects::fabric;
use crate::rules::Rule;
use crate::settings::Settings;
use crate::sys;

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Failure {
    pub(super) context: usize,
    pub(super) err: u32,
    pub(super) status: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Seen {
    Done(usize),
    Data(u64),
    Failed(Failure),
}

/// A message that obeys, until a test changes it.
pub(super) struct Message {
    pub(super) iovs: usize,
    pub(super) local: u64,
    pub(super) len: usize,
    pub(super) descriptor: usize,
    pub(super) rma_iovs: usize,
    pub(super) remote: u64,
    pub(super) remote_len: usize,
    pub(super) key: u64,
    pub(super) target: u64,
    pub(super) context: usize,
    pub(super) data: u64,
    pub(super) flags: u64,
    read: bool,
}

impl Message {
    pub(super) fn write(from: &Side, to: &Side, range: Range<usize>, data: u64) -> Self {
        let flags = sys::FI_REMOTE_CQ_DATA | sys::FI_COMPLETION | sys::FI_DELIVERY_COMPLETE;
        Self { data, flags: flags.into(), read: false, ..Self::read(from, to, range) }
    }

    pub(super) fn read(from: &Side, to: &Side, range: Range<usize>) -> Self {
        Self {
            iovs: 1,
            local: from.start() + range.start as u64,
            len: range.len(),
            descriptor: from.region().mem_desc as usize,
            rma_iovs: 1,
            remote: to.start() + range.start as u64,
            remote_len: range.len(),
            key: to.region().key,
            target: 0,
            // A context for each place in memory: messages of one test do not share any.
            context: from.context(range.start),
            data: 0,
            flags: sys::FI_COMPLETION.into(),
            read: true,
        }
    }
}

pub(super) struct Side {
    fabric: *mut sys::fid_fabric,
    domain: *mut sys::fid_domain,
    queue: *mut sys::fid_cq,
    vector: *mut sys::fid_av,
    endpoint: *mut sys::fid_ep,
    region: *mut sys::fid_mr,
    memory: Box<[UnsafeCell<u8>]>,
    contexts: Box<[UnsafeCell<sys::fi_context2>]>,
    log: tempfile::NamedTempFile,
}

// SAFETY: the provider's objects are shared under its lock; the test that does so looks at nothing else.
unsafe impl Sync for Side {}

/// A call of an object's table.
macro_rules! call {
    ($object:expr, $table:ident . $name:ident ( $($argument:expr),* )) => {
        // SAFETY: the object is open, its table complete for what these tests call, the arguments valid for the call.
        unsafe { ((*(*$object).$table).$name.unwrap())($($argument),*) }
    };
}

/// A call of the table that every object has.
macro_rules! call_fid {
    ($object:expr, $name:ident ( $($argument:expr),* )) => {
        // SAFETY: as above.
        unsafe { ((*(*$object.cast::<sys::fid>()).ops).$name.unwrap())($object.cast(), $($argument),*) }
    };
}

impl Side {
    pub(super) const BYTES: u64 = 64 << 10;

    pub(super) fn open(settings: Settings) -> Self {
        Self::with_queue(settings, 1024)
    }

    pub(super) fn with_queue(settings: Settings, entries: usize) -> Self {
        let side = Self::bare(settings, entries);
        side.switch_off();
        assert_eq!(side.enable(), 0);
        side
    }

    /// Open, and not enabled yet.
    pub(super) fn disabled(settings: Settings) -> Self {
        Self::bare(settings, 1024)
    }

    fn bare(settings: Settings, entries: usize) -> Self {
        let log = tempfile::NamedTempFile::new().unwrap();
        let settings = Settings { log: Some(log.path().to_owned()), ..settings };
        let null = ptr::null_mut();
        let mut fabric = ptr::null_mut();
        assert_eq!(fabric::open_with(Arc::new(settings), &mut fabric, null), 0);
        let mut domain = ptr::null_mut();
        assert_eq!(call!(fabric, ops.domain(fabric, ptr::null_mut(), &mut domain, null)), 0);
        let mut attr = sys::fi_cq_attr {
            size: entries,
            flags: 0,
            format: sys::FI_CQ_FORMAT_DATA,
            wait_obj: sys::FI_WAIT_NONE,
            signaling_vector: 0,
            wait_cond: sys::FI_CQ_COND_NONE,
            wait_set: ptr::null_mut(),
        };
        let mut queue = ptr::null_mut();
        assert_eq!(call!(domain, ops.cq_open(domain, &mut attr, &mut queue, null)), 0);
        let mut vector = ptr::null_mut();
        assert_eq!(call!(domain, ops.av_open(domain, ptr::null_mut(), &mut vector, null)), 0);
        let mut endpoint = ptr::null_mut();
        assert_eq!(call!(domain, ops.endpoint(domain, ptr::null_mut(), &mut endpoint, null)), 0);
        let both = u64::from(sys::FI_TRANSMIT | sys::FI_RECV);
        assert_eq!(call_fid!(endpoint, bind(queue.cast(), both)), 0);
        assert_eq!(call_fid!(endpoint, bind(vector.cast(), 0)), 0);
        let memory: Box<[_]> = (0..Self::BYTES).map(|_| UnsafeCell::new(0)).collect();
        let empty = sys::fi_context2 { internal: [ptr::null_mut(); 8] };
        let contexts = (0..Self::BYTES).map(|_| UnsafeCell::new(empty)).collect();
        let region = ptr::null_mut();
        let mut side = Self { fabric, domain, queue, vector, endpoint, region, memory, contexts, log };
        let mut region = ptr::null_mut();
        assert_eq!(side.register_at(side.start(), Self::BYTES as usize, &mut region), 0);
        side.region = region;
        side
    }

    fn register_at(&self, start: u64, len: usize, region: &mut *mut sys::fid_mr) -> c_int {
        let access = u64::from(sys::FI_WRITE | sys::FI_READ | sys::FI_REMOTE_WRITE | sys::FI_REMOTE_READ);
        let start = start as *const c_void;
        call!(self.domain, mr.reg(self.domain.cast(), start, len, access, 0, 0, 0, region, ptr::null_mut()))
    }

    pub(super) fn register(&self, start: u64, len: usize) -> c_int {
        self.register_at(start, len, &mut ptr::null_mut())
    }

    pub(super) fn start(&self) -> u64 {
        self.memory.as_ptr() as u64
    }

    pub(super) fn region(&self) -> sys::fid_mr {
        // SAFETY: the region is open.
        unsafe { *self.region }
    }

    fn context(&self, index: usize) -> usize {
        self.contexts[index].get() as usize
    }

    pub(super) fn fill(&self, byte: u8) {
        // SAFETY: the provider touches it only while it is called, on this thread.
        self.memory.iter().for_each(|cell| unsafe { *cell.get() = byte });
    }

    pub(super) fn bytes(&self) -> Vec<u8> {
        // SAFETY: as above.
        self.memory.iter().map(|cell| unsafe { *cell.get() }).collect()
    }

    pub(super) fn scribble(&self, address: usize) {
        // SAFETY: a word of one of our contexts.
        unsafe { *(address as *mut u64) = 1 };
    }

    pub(super) fn name(&self) -> Vec<u8> {
        let (mut name, mut len) = (vec![0u8; 64], 64);
        assert_eq!(
            call!(self.endpoint, cm.getname(self.endpoint.cast(), name.as_mut_ptr().cast(), &mut len)),
            0
        );
        name.truncate(len);
        name
    }

    pub(super) fn insert(&self, name: &[u8]) -> u64 {
        let mut handle = 0;
        let null = ptr::null_mut();
        let address = name.as_ptr().cast();
        assert_eq!(call!(self.vector, ops.insert(self.vector, address, 1, &mut handle, 0, null)), 1);
        handle
    }

    pub(super) fn remove(&self, mut handle: u64) {
        assert_eq!(call!(self.vector, ops.remove(self.vector, &mut handle, 1, 0)), 0);
    }

    pub(super) fn set(&self, option: u32, value: bool) -> c_int {
        let value = u8::from(value);
        let place = (&raw const value).cast();
        call!(self.endpoint, ops.setopt(self.endpoint.cast(), 0, option as c_int, place, 1))
    }

    pub(super) fn switch_off(&self) {
        assert_eq!(self.set(sys::FI_OPT_SHARED_MEMORY_PERMITTED, false), 0);
        assert_eq!(self.set(sys::FI_OPT_CUDA_API_PERMITTED, false), 0);
    }

    pub(super) fn option(&self, option: c_int) -> Result<usize, c_int> {
        let (mut value, mut len) = (0usize, size_of::<usize>());
        let place = (&raw mut value).cast();
        match call!(self.endpoint, ops.getopt(self.endpoint.cast(), 0, option, place, &mut len)) {
            0 => Ok(value),
            code => Err(code),
        }
    }

    pub(super) fn enable(&self) -> c_int {
        call_fid!(self.endpoint, control(sys::FI_ENABLE as c_int, ptr::null_mut()))
    }

    pub(super) fn post(&self, message: &Message) -> isize {
        let iov = sys::iovec { iov_base: message.local as *mut c_void, iov_len: message.len };
        let iovs = [iov; 2];
        let remote = sys::fi_rma_iov { addr: message.remote, len: message.remote_len, key: message.key };
        let remotes = [remote; 2];
        let mut descriptors = [message.descriptor as *mut c_void; 2];
        let raw = sys::fi_msg_rma {
            msg_iov: iovs.as_ptr(),
            desc: descriptors.as_mut_ptr(),
            iov_count: message.iovs,
            addr: message.target,
            rma_iov: remotes.as_ptr(),
            rma_iov_count: message.rma_iovs,
            context: message.context as *mut c_void,
            data: message.data,
        };
        if message.read {
            call!(self.endpoint, rma.readmsg(self.endpoint, &raw, message.flags))
        } else {
            call!(self.endpoint, rma.writemsg(self.endpoint, &raw, message.flags))
        }
    }

    fn read(&self, entries: &mut [sys::fi_cq_data_entry]) -> isize {
        call!(self.queue, ops.read(self.queue, entries.as_mut_ptr().cast(), entries.len()))
    }

    pub(super) fn read_code(&self) -> isize {
        self.read(&mut [EMPTY; 8])
    }

    pub(super) fn read_one(&self) -> isize {
        self.read(&mut [EMPTY; 1])
    }

    pub(super) fn poll(&self) -> Vec<Seen> {
        let mut entries = [EMPTY; 64];
        let count = self.read(&mut entries);
        if count == -(sys::FI_EAVAIL as isize) {
            return vec![Seen::Failed(self.failure())];
        }
        let seen = |entry: &sys::fi_cq_data_entry| match entry.flags & u64::from(sys::FI_REMOTE_CQ_DATA) {
            0 => Seen::Done(entry.op_context as usize),
            _ => Seen::Data(entry.data),
        };
        entries[..count.max(0) as usize].iter().map(seen).collect()
    }

    fn failure(&self) -> Failure {
        // SAFETY: numbers and pointers, for which zero is a value.
        let mut entry: sys::fi_cq_err_entry = unsafe { std::mem::zeroed() };
        assert_eq!(call!(self.queue, ops.readerr(self.queue, &mut entry, 0)), 1);
        let context = entry.op_context as usize;
        Failure { context, err: entry.err as u32, status: entry.prov_errno as u32 }
    }

    /// The rules in the log, in order.
    pub(super) fn violations(&self) -> Vec<Rule> {
        const ALL: [Rule; 16] = [
            Rule::Descriptor,
            Rule::LocalRange,
            Rule::Iov,
            Rule::MessageSize,
            Rule::Context,
            Rule::ContextChanged,
            Rule::UnknownTarget,
            Rule::Flags,
            Rule::UnknownInitiator,
            Rule::RemoteKey,
            Rule::RemoteRange,
            Rule::NoPolling,
            Rule::QueueOverrun,
            Rule::Threads,
            Rule::Options,
            Rule::CloseOrder,
        ];
        let text = std::fs::read_to_string(self.log.path()).unwrap();
        let named = text.lines().filter(|line| line.starts_with("violation "));
        let rule = |line: &str| {
            let (name, _) = line.split_once("rule=")?.1.split_once(':')?;
            ALL.into_iter().find(|rule| format!("{rule:?}") == name)
        };
        named.map(|line| rule(line).unwrap_or_else(|| panic!("no rule in {line}"))).collect()
    }

    pub(super) fn close_queue(&self) -> c_int {
        call_fid!(self.queue, close())
    }

    pub(super) fn close_region(&mut self) {
        let region = std::mem::replace(&mut self.region, ptr::null_mut());
        assert_eq!(call_fid!(region, close()), 0);
    }
}

const EMPTY: sys::fi_cq_data_entry =
    sys::fi_cq_data_entry { op_context: ptr::null_mut(), flags: 0, len: 0, buf: ptr::null_mut(), data: 0 };

impl Drop for Side {
    fn drop(&mut self) {
        call_fid!(self.endpoint, close());
        if !self.region.is_null() {
            call_fid!(self.region, close());
        }
        call_fid!(self.vector, close());
        call_fid!(self.queue, close());
        call_fid!(self.domain, close());
        call_fid!(self.fabric, close());
    }
}
