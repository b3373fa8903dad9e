//! Reading MessagePack from strangers: bounded by the bytes that are there, without recursion.

/// Bytes that are not what they should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "KV events cannot be read: {expected} expected at byte {at}; the worker's engine may be newer than this index"
)]
pub struct DecodeError {
    expected: &'static str,
    at: usize,
}

type Result<T> = std::result::Result<T, DecodeError>;

/// A place in a message.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

/// The first byte of a value, and its length if it has one.
enum Head {
    Nil,
    Uint(u64),
    Negative(i64),
    /// Booleans and floats, of which nobody wants the value.
    Other,
    Bytes(usize),
    /// An extension, with one byte more that says which.
    Extension(usize),
    Array(usize),
    Map(usize),
}

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self { bytes, at: 0 }
    }

    pub(crate) fn at(&self) -> usize {
        self.at
    }

    pub(crate) fn since(&self, at: usize) -> &'a [u8] {
        &self.bytes[at..self.at]
    }

    fn error<T>(&self, expected: &'static str) -> Result<T> {
        Err(DecodeError { expected, at: self.at })
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8]> {
        let Some(taken) = self.bytes.get(self.at..).and_then(|rest| rest.get(..len)) else {
            return self.error("more");
        };
        self.at += len;
        Ok(taken)
    }

    fn number<const N: usize>(&mut self) -> Result<u64> {
        let mut bytes = [0; 8];
        bytes[8 - N..].copy_from_slice(self.take(N)?);
        Ok(u64::from_be_bytes(bytes))
    }

    fn head(&mut self) -> Result<Head> {
        let tag = self.number::<1>()? as u8;
        Ok(match tag {
            0..=0x7f => Head::Uint(u64::from(tag)),
            0x80..=0x8f => Head::Map(usize::from(tag & 0xf)),
            0x90..=0x9f => Head::Array(usize::from(tag & 0xf)),
            0xa0..=0xbf => Head::Bytes(usize::from(tag & 0x1f)),
            0xc0 => Head::Nil,
            0xc1 => return self.error("a value"),
            0xc2 | 0xc3 => Head::Other,
            0xc4 | 0xd9 => Head::Bytes(self.number::<1>()? as usize),
            0xc5 | 0xda => Head::Bytes(self.number::<2>()? as usize),
            0xc6 | 0xdb => Head::Bytes(self.number::<4>()? as usize),
            0xc7 => Head::Extension(self.number::<1>()? as usize),
            0xc8 => Head::Extension(self.number::<2>()? as usize),
            0xc9 => Head::Extension(self.number::<4>()? as usize),
            0xca => self.take(4).map(|_| Head::Other)?,
            0xcb => self.take(8).map(|_| Head::Other)?,
            0xcc => Head::Uint(self.number::<1>()?),
            0xcd => Head::Uint(self.number::<2>()?),
            0xce => Head::Uint(self.number::<4>()?),
            0xcf => Head::Uint(self.number::<8>()?),
            0xd0 => signed(self.number::<1>()? as i8 as i64),
            0xd1 => signed(self.number::<2>()? as i16 as i64),
            0xd2 => signed(self.number::<4>()? as i32 as i64),
            0xd3 => signed(self.number::<8>()? as i64),
            0xd4..=0xd8 => Head::Extension(1 << (tag - 0xd4)),
            0xdc => Head::Array(self.number::<2>()? as usize),
            0xdd => Head::Array(self.number::<4>()? as usize),
            0xde => Head::Map(self.number::<2>()? as usize),
            0xdf => Head::Map(self.number::<4>()? as usize),
            0xe0.. => Head::Negative(i64::from(tag as i8)),
        })
    }

    /// A length that has at least `bytes_each` for each is not larger than what is there.
    fn checked(&self, len: usize, bytes_each: usize) -> Result<usize> {
        let left = self.bytes.len() - self.at;
        if len > left / bytes_each { self.error("as many values as were announced") } else { Ok(len) }
    }

    /// Elements of an array that begins here, or `None` for nil.
    pub(crate) fn array(&mut self) -> Result<Option<usize>> {
        match self.head()? {
            Head::Nil => Ok(None),
            Head::Array(len) => self.checked(len, 1).map(Some),
            _ => self.error("an array"),
        }
    }

    /// Whether a record is a map, and how many elements or pairs it has.
    pub(crate) fn record(&mut self) -> Result<(bool, usize)> {
        match self.head()? {
            Head::Array(len) => Ok((false, self.checked(len, 1)?)),
            Head::Map(len) => Ok((true, self.checked(len, 2)?)),
            _ => self.error("a record"),
        }
    }

    /// Text or bytes, or `None` for nil.
    pub(crate) fn bytes(&mut self) -> Result<Option<&'a [u8]>> {
        match self.head()? {
            Head::Nil => Ok(None),
            Head::Bytes(len) => self.take(len).map(Some),
            _ => self.error("a text"),
        }
    }

    /// A number that is not negative, or `None` for nil.
    pub(crate) fn uint(&mut self) -> Result<Option<u64>> {
        match self.head()? {
            Head::Nil => Ok(None),
            Head::Uint(value) => Ok(Some(value)),
            _ => self.error("a number"),
        }
    }

    /// A hash as engines write them, numbers or bytes, or `None` for nil.
    #[inline]
    pub(crate) fn hash(&mut self) -> Result<Option<u64>> {
        // Most are of eight bytes.
        if let Some([0xcf, rest @ ..]) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<9>()) {
            self.at += 9;
            return Ok(Some(u64::from_be_bytes(*rest)));
        }
        match self.head()? {
            Head::Nil => Ok(None),
            Head::Uint(value) => Ok(Some(value)),
            Head::Negative(value) => Ok(Some(value as u64)),
            Head::Bytes(len) => self.take(len).map(|bytes| Some(crate::key::text(bytes))),
            _ => self.error("a hash"),
        }
    }

    /// An array of hashes.
    pub(crate) fn hashes(&mut self, out: &mut Vec<u64>) -> Result<()> {
        out.clear();
        let Some(len) = self.array()? else { return self.error("hashes") };
        out.reserve(len);
        for _ in 0..len {
            let Some(hash) = self.hash()? else { return self.error("a hash") };
            out.push(hash);
        }
        Ok(())
    }

    /// An array of token ids.
    pub(crate) fn tokens(&mut self, out: &mut Vec<u32>) -> Result<()> {
        out.clear();
        let Some(len) = self.array()? else { return self.error("tokens") };
        out.reserve(len);
        for _ in 0..len {
            out.push(self.token()?);
        }
        Ok(())
    }

    #[inline]
    fn token(&mut self) -> Result<u32> {
        if let Some(head) = self.bytes.get(self.at..).and_then(|rest| rest.first_chunk::<5>()) {
            let [tag, a, b, c, d] = *head;
            match tag {
                0xcd => {
                    self.at += 3;
                    return Ok(u32::from(u16::from_be_bytes([a, b])));
                }
                0xce => {
                    self.at += 5;
                    return Ok(u32::from_be_bytes([a, b, c, d]));
                }
                0..=0x7f => {
                    self.at += 1;
                    return Ok(u32::from(tag));
                }
                _ => {}
            }
        }
        match self.head()? {
            Head::Uint(value) => u32::try_from(value).or_else(|_| self.error("a token id")),
            _ => self.error("a token id"),
        }
    }

    /// Goes past a value of any kind.
    pub(crate) fn skip(&mut self) -> Result<()> {
        let mut values = 1_usize;
        while values > 0 {
            values -= 1;
            match self.head()? {
                Head::Nil | Head::Uint(_) | Head::Negative(_) | Head::Other => {}
                Head::Bytes(len) => drop(self.take(len)?),
                Head::Extension(len) => drop(self.take(len + 1)?),
                Head::Array(len) => values += self.checked(len, 1)?,
                Head::Map(len) => values += 2 * self.checked(len, 2)?,
            }
        }
        Ok(())
    }
}

fn signed(value: i64) -> Head {
    u64::try_from(value).map_or(Head::Negative(value), Head::Uint)
}
