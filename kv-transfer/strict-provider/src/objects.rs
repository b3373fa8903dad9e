//! libfabric's objects, as C sees them. Each starts with its `fid`; what it can do is in static tables.
//!
//! A call that this project does not make has no entry: there is no pretending to support what no test looks at.

pub(crate) mod fabric;

mod cq;
mod domain;
mod ep;
mod mr;
mod vector;

use std::ffi::{c_int, c_void};

use crate::rules::Rule;
use crate::sys;

/// Objects whose first field is a `fid` of libfabric's, under C's layout.
///
/// # Safety
/// `repr(C)`, and the first field begins with a `sys::fid`.
unsafe trait Object: Sized {
    const CLASS: u32;
    const OPS: &'static sys::fi_ops;

    fn fid(context: *mut c_void) -> sys::fid {
        sys::fid { fclass: Self::CLASS as usize, context, ops: table(Self::OPS) }
    }

    /// Gives the object to C, which closes it.
    fn hand_out<F>(self, place: *mut *mut F) -> c_int {
        let object = Box::into_raw(Box::new(self));
        // SAFETY: the caller of an open function gives a place for the object.
        unsafe { *place = object.cast() };
        0
    }

    /// The object that C names.
    ///
    /// # Safety
    /// It was handed out as this type, and is open.
    unsafe fn of<'a, F>(fid: *mut F) -> &'a Self {
        // SAFETY: by this function's contract.
        unsafe { &*fid.cast::<Self>() }
    }

    /// Takes the object back from C.
    ///
    /// # Safety
    /// As for `of`, and it is not used again.
    unsafe fn take_back(fid: *mut sys::fid) -> Box<Self> {
        // SAFETY: handed out from a box, by this function's contract.
        unsafe { Box::from_raw(fid.cast::<Self>()) }
    }
}

/// A table, as C's structures want it. Nobody writes to it.
fn table<T>(table: &'static T) -> *mut T {
    std::ptr::from_ref(table).cast_mut()
}

fn fail(errno: u32) -> c_int {
    -(errno as c_int)
}

fn close_order(log: &crate::log::Log, what: &str) -> c_int {
    log.violation(Rule::CloseOrder, &format!("{what} closed before what it holds"));
    fail(sys::FI_EBUSY)
}

const fn ops(
    close: unsafe extern "C" fn(*mut sys::fid) -> c_int,
    bind: Option<unsafe extern "C" fn(*mut sys::fid, *mut sys::fid, u64) -> c_int>,
    control: Option<unsafe extern "C" fn(*mut sys::fid, c_int, *mut c_void) -> c_int>,
) -> sys::fi_ops {
    let size = size_of::<sys::fi_ops>();
    sys::fi_ops { size, close: Some(close), bind, control, ops_open: None, tostr: None, ops_set: None }
}
