//! The part of MessagePack that batches need, each value in its shortest form.

/// Bytes of a message as far as it is written.
#[derive(Default)]
pub(crate) struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    pub(crate) fn nil(&mut self) {
        self.bytes.push(0xc0);
    }

    pub(crate) fn uint(&mut self, value: u64) {
        match value {
            0..0x80 => self.bytes.push(value as u8),
            0x80..0x100 => self.tagged(0xcc, &[value as u8]),
            0x100..0x1_0000 => self.tagged(0xcd, &(value as u16).to_be_bytes()),
            0x1_0000..0x1_0000_0000 => self.tagged(0xce, &(value as u32).to_be_bytes()),
            _ => self.tagged(0xcf, &value.to_be_bytes()),
        }
    }

    pub(crate) fn float(&mut self, value: f64) {
        self.tagged(0xcb, &value.to_be_bytes());
    }

    pub(crate) fn text(&mut self, text: &str) {
        match text.len() {
            len @ 0..32 => self.bytes.push(0xa0 | len as u8),
            len @ 32..0x100 => self.tagged(0xd9, &[len as u8]),
            len @ 0x100..0x1_0000 => self.tagged(0xda, &(len as u16).to_be_bytes()),
            len => self.tagged(0xdb, &(len as u32).to_be_bytes()),
        }
        self.bytes.extend_from_slice(text.as_bytes());
    }

    /// `len` values follow.
    pub(crate) fn array(&mut self, len: usize) {
        match len {
            0..16 => self.bytes.push(0x90 | len as u8),
            16..0x1_0000 => self.tagged(0xdc, &(len as u16).to_be_bytes()),
            _ => self.tagged(0xdd, &(len as u32).to_be_bytes()),
        }
    }

    /// `len` keys follow, each with its value.
    pub(crate) fn map(&mut self, len: usize) {
        debug_assert!(len < 16, "larger maps have another form");
        self.bytes.push(0x80 | len as u8);
    }

    pub(crate) fn each<T>(&mut self, values: &[T], mut write: impl FnMut(&mut Self, &T)) {
        self.array(values.len());
        values.iter().for_each(|value| write(self, value));
    }

    pub(crate) fn or_nil<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        match value {
            Some(value) => write(self, value),
            None => self.nil(),
        }
    }

    fn tagged(&mut self, tag: u8, rest: &[u8]) {
        self.bytes.push(tag);
        self.bytes.extend_from_slice(rest);
    }
}
