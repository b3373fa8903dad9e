//! All groups, by number.

use super::group::Group;
use crate::pages::{Page, Spares};

/// Marks the end of the list of those that are not in use.
const NONE: u32 = u32::MAX;
/// Groups of a page, a power of two.
const PAGE: usize = Page::<Group>::ITEMS;

pub(super) struct Groups {
    pages: Vec<Page<Group>>,
    spares: Spares,
    /// Numbers that were given out so far.
    numbers: usize,
    /// Of those, in use.
    used: usize,
    /// The first of a list of those that are not.
    free: Option<u32>,
}

impl Groups {
    pub(super) fn new(spares: Spares) -> Self {
        Self { pages: Vec::new(), spares, numbers: 0, used: 0, free: None }
    }

    /// Numbers are below this.
    pub(super) fn numbers(&self) -> usize {
        self.numbers
    }

    pub(super) fn used(&self) -> usize {
        self.used
    }

    pub(super) fn bytes(&self) -> usize {
        self.pages.len() * PAGE * size_of::<Group>()
    }

    #[inline]
    pub(super) fn get(&self, number: u32) -> Option<&Group> {
        self.pages.get(number as usize / PAGE).map(|page| &page.items()[number as usize % PAGE])
    }

    /// One that is in use.
    #[inline]
    pub(super) fn group(&self, number: u32) -> &Group {
        &self.pages[number as usize / PAGE].items()[number as usize % PAGE]
    }

    #[inline]
    pub(super) fn group_mut(&mut self, number: u32) -> &mut Group {
        &mut self.pages[number as usize / PAGE].items_mut()[number as usize % PAGE]
    }

    /// Another one for keys with this upper half; something has to be put into it.
    pub(super) fn add(&mut self, upper: u32) -> u32 {
        self.used += 1;
        let number = match self.free {
            Some(number) => {
                let next = self.group(number).upper;
                self.free = (next != NONE).then_some(next);
                number
            }
            None => {
                if self.numbers == self.pages.len() * PAGE {
                    self.pages.push(self.spares.take());
                }
                self.numbers += 1;
                (self.numbers - 1) as u32
            }
        };
        *self.group_mut(number) = Group::new(upper);
        number
    }

    /// An empty one is not needed any more. When none is, the memory is given back.
    pub(super) fn free(&mut self, number: u32) {
        debug_assert!(self.group(number).is_empty(), "something is in it");
        self.group_mut(number).upper = self.free.unwrap_or(NONE);
        self.free = Some(number);
        self.used -= 1;
        if self.used == 0 {
            *self = Self::new(self.spares.clone());
        }
    }
}
