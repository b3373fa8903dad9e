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
        out.resize(len, 0);
        let mut rest = &self.bytes[self.at..];
        for token in out {
            if let Some((value, after)) = short_token(rest) {
                (*token, rest) = (value, after);
                continue;
            }
            self.at = self.bytes.len() - rest.len();
            let Head::Uint(value) = self.head()? else { return self.error("a token id") };
            *token = u32::try_from(value).or_else(|_| self.error("a token id"))?;
            rest = &self.bytes[self.at..];
        }
        self.at = self.bytes.len() - rest.len();
        Ok(())
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

/// A number of four bytes at most, and what comes after it; or `None` for any other value and near the end.
#[inline]
fn short_token(bytes: &[u8]) -> Option<(u32, &[u8])> {
    let next = u64::from_be_bytes(*bytes.first_chunk()?);
    let tag = next >> 56;
    // Most are of two bytes. Of the others no branch predictor could know which comes.
    if tag == 0xcd {
        return Some((u32::from((next >> 40) as u16), &bytes[3..]));
    }
    let is_small = tag < 0x80;
    if !is_small && !(0xcc..=0xce).contains(&tag) {
        return None;
    }
    let len = if is_small { 0 } else { 1 << (tag & 3) };
    let value = if is_small { tag } else { next << 8 >> (64 - 8 * len) };
    Some((value as u32, &bytes[1 + len..]))
}

fn signed(value: i64) -> Head {
    u64::try_from(value).map_or(Head::Negative(value), Head::Uint)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tokens(values: &[Vec<u8>]) -> Result<Vec<u32>> {
        let bytes = [&[0xdc, 0, values.len() as u8], values.concat().as_slice()].concat();
        let (mut reader, mut out) = (Reader::new(&bytes), vec![7]);
        reader.tokens(&mut out)?;
        assert_eq!(reader.at(), bytes.len());
        Ok(out)
    }

    /// All the ways to write a number.
    fn written(value: u32) -> Vec<Vec<u8>> {
        let bytes = u64::from(value).to_be_bytes();
        let tagged = |tag: u8, len: usize| [&[tag][..], &bytes[8 - len..]].concat();
        let mut all = vec![tagged(0xcf, 8), tagged(0xd3, 8), tagged(0xce, 4)];
        all.extend((value < 1 << 31).then(|| tagged(0xd2, 4)));
        all.extend((value < 1 << 16).then(|| tagged(0xcd, 2)));
        all.extend((value < 1 << 15).then(|| tagged(0xd1, 2)));
        all.extend((value < 1 << 8).then(|| tagged(0xcc, 1)));
        all.extend((value < 1 << 7).then(|| tagged(0xd0, 1)));
        all.extend((value < 1 << 7).then(|| vec![value as u8]));
        all
    }

    #[test]
    fn tokens_are_the_same_however_they_are_written_and_whatever_follows() {
        const VALUES: [u32; 8] = [0, 127, 128, 255, 256, 65_535, 65_536, u32::MAX];
        for value in VALUES {
            for one in written(value) {
                assert_eq!(tokens(std::slice::from_ref(&one)), Ok(vec![value]));
                for next in VALUES {
                    for two in written(next) {
                        assert_eq!(tokens(&[one.clone(), two.clone()]), Ok(vec![value, next]));
                    }
                }
            }
        }
    }

    #[test]
    fn what_is_no_token_is_refused_wherever_it_is() {
        let rest = vec![vec![0xcd, 1, 0]; 4];
        for bad in [vec![0xcf, 0, 0, 0, 1, 0, 0, 0, 0], vec![0xff], vec![0xc0], vec![0xa1, 65]] {
            let bad = [bad];
            assert!(tokens(&[&bad, rest.as_slice()].concat()).is_err(), "{bad:x?}");
            assert!(tokens(&[rest.as_slice(), &bad].concat()).is_err(), "{bad:x?}");
        }
        for one in written(127) {
            assert!(tokens(&[one[..one.len() - 1].to_vec()]).is_err(), "the end of {one:x?} is missing");
        }
    }
}
