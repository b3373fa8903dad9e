//! Memory for weights and activations: zeroed, on page borders, in huge pages where the system gives them.

use std::{marker::PhantomData, ops, sync::Mutex};

use memmap2::MmapMut;

use half::bf16;

/// Types of which any bytes are a value.
///
/// # Safety
/// Every pattern of bits is a valid value, and alignment is at most a page's.
pub(crate) unsafe trait Bits: Copy + Send + Sync + 'static {}

// SAFETY: any bits are a float, or a NaN.
unsafe impl Bits for f32 {}
// SAFETY: as for f32.
unsafe impl Bits for bf16 {}
// SAFETY: any byte is one.
unsafe impl Bits for u8 {}
// SAFETY: as for u8.
unsafe impl Bits for i8 {}

/// Elements in memory of their own, aligned to a page.
pub(crate) struct Buffer<T> {
    map: Option<MmapMut>,
    len: usize,
    element: PhantomData<T>,
}

/// Memory of each thread.
pub(crate) type Scratches<T> = [Mutex<Buffer<T>>];

impl<T> Buffer<T> {
    /// No elements, no memory.
    pub(crate) const fn new() -> Self {
        Self { map: None, len: 0, element: PhantomData }
    }
}

impl<T: Bits> Buffer<T> {
    /// `len` zeros.
    pub(crate) fn zeroed(len: usize) -> std::io::Result<Self> {
        if len == 0 {
            return Ok(Self::new());
        }
        let map = MmapMut::map_anon(len * size_of::<T>())?;
        // Fewer TLB misses where it works; a kernel without huge pages says no and nothing is lost.
        #[cfg(target_os = "linux")]
        let _ = map.advise(memmap2::Advice::HugePage);
        Ok(Self { map: Some(map), len, element: PhantomData })
    }

    /// At least `len` elements; what they held is lost if the buffer had fewer. Never shrinks.
    ///
    /// # Panics
    /// When the system has no memory left.
    pub(crate) fn at_least(&mut self, len: usize) -> &mut [T] {
        if self.len < len {
            *self = Self::new();
            // A quarter more, so that a slowly growing batch does not allocate at each step.
            *self = Self::zeroed(len + len / 4)
                .unwrap_or_else(|e| panic!("no memory for {len} activations: {e}"));
        }
        &mut self[..len]
    }
}

impl<T: Bits> ops::Deref for Buffer<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        let Some(map) = &self.map else { return &[] };
        // SAFETY: the map holds `len` elements, is page-aligned, lives as long as `self`, and any bytes are a `T`; no
        // crate reads a map as floats without a cast.
        unsafe { std::slice::from_raw_parts(map.as_ptr().cast(), self.len) }
    }
}

impl<T: Bits> ops::DerefMut for Buffer<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        let Some(map) = &mut self.map else { return &mut [] };
        // SAFETY: as for `deref`; `&mut self` makes it the only reference.
        unsafe { std::slice::from_raw_parts_mut(map.as_mut_ptr().cast(), self.len) }
    }
}
