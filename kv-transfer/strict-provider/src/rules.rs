//! The rules, and the checks of a post that need no more than the post and what is registered.

use crate::nic::Regions;
use crate::sys;

/// What can be broken. The names are those in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Rule {
    /// A missing descriptor, or one of no region that is open.
    Descriptor,
    /// The local range leaves its region, or the region was not registered for this use.
    LocalRange,
    /// Not exactly one local and one remote iov, of the same length.
    Iov,
    /// More than FI_OPT_MAX_RMA_SIZE in one operation.
    MessageSize,
    /// No context, one that is not aligned, or one that is in flight already.
    Context,
    /// A context changed while it was the provider's, or has less room than an fi_context2.
    ContextChanged,
    /// A target that is not in the address vector.
    UnknownTarget,
    /// FI_FENCE, FI_INJECT and other flags that EFA does not take, or data of more than four bytes.
    Flags,
    /// An initiator that this target never put into its address vector.
    UnknownInitiator,
    /// A key of no region that is open, or not registered for this use.
    RemoteKey,
    /// A range that leaves the region of its key.
    RemoteRange,
    /// FI_EAGAIN answered with more posts instead of polling.
    NoPolling,
    /// More operations in flight, or more completions unread, than the completion queue holds.
    QueueOverrun,
    /// Two threads in one domain at the same time.
    Threads,
    /// An endpoint option not set, or set too late.
    Options,
    /// A region closed with operations in flight, or a parent before its children.
    CloseOrder,
}

/// A rule that was broken, how, and what the caller is told.
#[derive(Debug)]
pub(crate) struct Broken {
    pub(crate) rule: Rule,
    pub(crate) errno: u32,
    pub(crate) text: String,
}

pub(crate) fn broken<T>(rule: Rule, errno: u32, text: String) -> Result<T, Broken> {
    Err(Broken { rule, errno, text })
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Write,
    Read,
}

/// A write or read as it was posted, numbers only.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Post {
    pub(crate) kind: Kind,
    pub(crate) iovs: usize,
    pub(crate) local: u64,
    pub(crate) len: u64,
    pub(crate) descriptor: usize,
    pub(crate) rma_iovs: usize,
    pub(crate) remote: u64,
    pub(crate) remote_len: u64,
    pub(crate) key: u64,
    pub(crate) target: u64,
    pub(crate) context: usize,
    pub(crate) data: u64,
    pub(crate) flags: u64,
}

const WRITE_FLAGS: u32 = sys::FI_REMOTE_CQ_DATA
    | sys::FI_COMPLETION
    | sys::FI_TRANSMIT_COMPLETE
    | sys::FI_DELIVERY_COMPLETE
    | sys::FI_MORE;
const READ_FLAGS: u32 = sys::FI_COMPLETION | sys::FI_TRANSMIT_COMPLETE | sys::FI_MORE;

/// What a post says by itself.
pub(crate) fn check(
    post: &Post,
    regions: &Regions,
    max_rma_bytes: u64,
    delivery: bool,
) -> Result<(), Broken> {
    check_form(post, delivery)?;
    if post.len > max_rma_bytes {
        let text = format!("{} bytes, FI_OPT_MAX_RMA_SIZE is {max_rma_bytes}", post.len);
        return broken(Rule::MessageSize, sys::FI_EMSGSIZE, text);
    }
    let Some(region) = regions.by_descriptor(post.descriptor) else {
        let text = format!("{:#x} is the descriptor of no open region", post.descriptor);
        return broken(Rule::Descriptor, sys::FI_EINVAL, text);
    };
    let access = match post.kind {
        Kind::Write => sys::FI_WRITE,
        Kind::Read => sys::FI_READ,
    };
    if !region.holds(post.local, post.len) || region.access & u64::from(access) == 0 {
        let text = format!("{:#x}+{} is not in {region:?} for this use", post.local, post.len);
        return broken(Rule::LocalRange, sys::FI_EINVAL, text);
    }
    Ok(())
}

fn check_form(post: &Post, delivery: bool) -> Result<(), Broken> {
    let mut allowed = match post.kind {
        Kind::Write => u64::from(WRITE_FLAGS),
        Kind::Read => u64::from(READ_FLAGS),
    };
    if !delivery {
        allowed &= !u64::from(sys::FI_DELIVERY_COMPLETE);
    }
    if post.flags & !allowed != 0 {
        let text = format!("flags {:#x} of a {:?}", post.flags & !allowed, post.kind);
        return broken(Rule::Flags, sys::FI_EOPNOTSUPP, text);
    }
    if post.flags & u64::from(sys::FI_REMOTE_CQ_DATA) != 0 && post.data > u64::from(u32::MAX) {
        return broken(
            Rule::Flags,
            sys::FI_EINVAL,
            format!("completion data {:#x} is over 4 bytes", post.data),
        );
    }
    if post.iovs != 1 || post.rma_iovs != 1 || post.len != post.remote_len {
        let text = format!(
            "{} local iov and {} remote, of {} and {} bytes",
            post.iovs, post.rma_iovs, post.len, post.remote_len
        );
        return broken(Rule::Iov, sys::FI_EINVAL, text);
    }
    if post.context == 0 || !post.context.is_multiple_of(align_of::<sys::fi_context2>()) {
        return broken(Rule::Context, sys::FI_EINVAL, format!("context {:#x}", post.context));
    }
    Ok(())
}
