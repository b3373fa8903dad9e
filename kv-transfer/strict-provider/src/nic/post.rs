//! Taking posts.

use rand::Rng;

use super::{Nic, Operation};
use crate::rules::{Broken, Post, Rule, broken, check};
use crate::sys;

/// So many posts may follow an FI_EAGAIN before somebody must have looked at the queue.
const DEAF_POSTS: u32 = 10_000;

impl Nic {
    /// Takes a write or a read. `Ok(false)`: FI_EAGAIN.
    pub(crate) fn post(&mut self, post: Post) -> Result<bool, Broken> {
        if self.door.is_none() {
            return broken(
                Rule::Options,
                sys::FI_EOPBADSTATE,
                "a post before the endpoint is enabled".to_owned(),
            );
        }
        check(&post, &self.regions, self.settings.max_rma_bytes, self.settings.delivery)?;
        let Some(target) = self.peers.get(post.target) else {
            let text = format!("handle {} is not in the address vector", post.target);
            return broken(Rule::UnknownTarget, sys::FI_EINVAL, text);
        };
        if self.contexts.has(post.context) {
            return broken(Rule::Context, sys::FI_EINVAL, format!("{:#x} is in flight", post.context));
        }
        if !self.has_room()? {
            return Ok(false);
        }
        let id = self.next_operation;
        self.next_operation += 1;
        self.tally.posts += 1;
        self.outstanding += 1;
        self.contexts.take(post.context, id);
        self.operations.insert(id, Operation { post, target, sent: false });
        self.deferred.push(id);
        if post.flags & u64::from(sys::FI_MORE) == 0 {
            self.ready.append(&mut self.deferred);
        }
        Ok(true)
    }

    /// Credits, and the whims of a device; who is told to poll must poll.
    fn has_room(&mut self) -> Result<bool, Broken> {
        if let Some(posts) = &mut self.unheard {
            *posts += 1;
            if *posts == DEAF_POSTS {
                let text = format!("{DEAF_POSTS} posts since FI_EAGAIN, and the queue was not read");
                return broken(Rule::NoPolling, sys::FI_EAGAIN, text);
            }
            return Ok(false);
        }
        let size = self.queue.as_ref().map_or(0, |queue| queue.size);
        if self.outstanding >= size {
            if let Some(queue) = &mut self.queue {
                queue.overran = true;
            }
            let text = format!("{} operations in flight, the queue has {size} entries", self.outstanding + 1);
            return broken(Rule::QueueOverrun, sys::FI_EOVERRUN, text);
        }
        let whim = self.settings.eagain > 0 && self.random.random_range(0..self.settings.eagain) == 0;
        if whim || self.outstanding >= self.settings.tx_size {
            self.tally.eagain += 1;
            self.unheard = Some(0);
            return Ok(false);
        }
        Ok(true)
    }
}
