//! What this scheduler has sent a worker and has not seen end: counted while a value lives.

use std::sync::{Arc, atomic::Ordering};

use super::Member;

/// One request on a decode worker.
pub(crate) struct DecodeShare(Arc<Member>);

/// One prompt on a prefill worker.
pub(crate) struct PrefillShare {
    member: Arc<Member>,
    prompt_tokens: u64,
}

impl DecodeShare {
    pub(crate) fn take(member: Arc<Member>) -> Self {
        member.in_flight_requests.fetch_add(1, Ordering::Relaxed);
        Self(member)
    }
}

impl Drop for DecodeShare {
    fn drop(&mut self) {
        self.0.in_flight_requests.fetch_sub(1, Ordering::Relaxed);
    }
}

impl PrefillShare {
    pub(crate) fn take(member: Arc<Member>, prompt_tokens: u64) -> Self {
        member.in_flight_requests.fetch_add(1, Ordering::Relaxed);
        member.in_flight_prompt_tokens.fetch_add(prompt_tokens, Ordering::Relaxed);
        Self { member, prompt_tokens }
    }
}

impl Drop for PrefillShare {
    fn drop(&mut self) {
        self.member.in_flight_requests.fetch_sub(1, Ordering::Relaxed);
        self.member.in_flight_prompt_tokens.fetch_sub(self.prompt_tokens, Ordering::Relaxed);
    }
}
