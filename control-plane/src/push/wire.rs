//! Protobuf, read in place: fields are slices of the message, and what nobody asks for costs no more than its length.

use thiserror::Error;

/// A message that is no protobuf.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("no valid protobuf message")]
pub(super) struct BadWire;

/// The value of one field.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Value<'a> {
    Varint(u64),
    Fixed64(u64),
    Bytes(&'a [u8]),
    Fixed32(u32),
}

impl<'a> Value<'a> {
    /// The bytes of a string, a message or a packed list; none for another type, as decoders skip what they do not expect.
    pub(super) fn bytes(self) -> Option<&'a [u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// A string.
    pub(super) fn text(self) -> Result<Option<&'a str>, BadWire> {
        self.bytes().map(|bytes| std::str::from_utf8(bytes).map_err(|_| BadWire)).transpose()
    }

    pub(super) fn fixed64(self) -> Option<u64> {
        match self {
            Self::Fixed64(bits) => Some(bits),
            _ => None,
        }
    }

    pub(super) fn double(self) -> Option<f64> {
        self.fixed64().map(f64::from_bits)
    }

    /// A signed number that is small whatever its sign.
    pub(super) fn zigzag(self) -> Option<i64> {
        self.varint().map(|value| (value >> 1).cast_signed() ^ -(value & 1).cast_signed())
    }

    pub(super) fn varint(self) -> Option<u64> {
        match self {
            Self::Varint(value) => Some(value),
            _ => None,
        }
    }
}

/// The fields of a message in the order of the wire.
#[derive(Clone, Copy, Debug)]
pub(super) struct Fields<'a> {
    rest: &'a [u8],
}

/// Reads a message.
pub(super) fn fields(message: &[u8]) -> Fields<'_> {
    Fields { rest: message }
}

impl<'a> Fields<'a> {
    /// The next field and its number; none at the end.
    #[inline]
    pub(super) fn next(&mut self) -> Result<Option<(u32, Value<'a>)>, BadWire> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        let tag = self.varint()?;
        let number = u32::try_from(tag >> 3).map_err(|_| BadWire)?;
        if number == 0 {
            return Err(BadWire);
        }
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => Value::Fixed64(u64::from_le_bytes(self.array()?)),
            2 => {
                let length = usize::try_from(self.varint()?).map_err(|_| BadWire)?;
                Value::Bytes(self.take(length)?)
            }
            5 => Value::Fixed32(u32::from_le_bytes(self.array()?)),
            // Groups, which none of the protocols has.
            _ => return Err(BadWire),
        };
        Ok(Some((number, value)))
    }

    #[inline]
    fn varint(&mut self) -> Result<u64, BadWire> {
        if let [byte @ ..0x80, rest @ ..] = self.rest {
            self.rest = rest;
            return Ok(u64::from(*byte));
        }
        let mut value = 0_u64;
        for (index, byte) in self.rest.iter().take(10).enumerate() {
            value |= u64::from(byte & 0x7f).wrapping_shl(7 * index as u32);
            if byte & 0x80 == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(value);
            }
        }
        Err(BadWire)
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], BadWire> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(BadWire)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], BadWire> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(BadWire)?;
        self.rest = rest;
        Ok(*taken)
    }
}

/// The 64-bit values of a list: packed, or one of those that came one by one.
pub(super) fn fixed64s(value: Value<'_>) -> Result<impl Iterator<Item = u64> + '_, BadWire> {
    let (packed, single): (&[u8], Option<u64>) = match value {
        Value::Bytes(bytes) if bytes.len() % 8 == 0 => (bytes, None),
        Value::Fixed64(bits) => (&[], Some(bits)),
        _ => return Err(BadWire),
    };
    let (chunks, _) = packed.as_chunks::<8>();
    Ok(single.into_iter().chain(chunks.iter().map(|chunk| u64::from_le_bytes(*chunk))))
}

/// Appends up to `most` numbers of a list: packed, or one of those that came one by one.
pub(super) fn push_varints(value: Value<'_>, most: usize, into: &mut Vec<u64>) -> Result<(), BadWire> {
    match value {
        Value::Varint(number) if into.len() < most => into.push(number),
        Value::Varint(_) => {}
        Value::Bytes(bytes) => {
            let mut packed = Fields { rest: bytes };
            while !packed.rest.is_empty() && into.len() < most {
                into.push(packed.varint()?);
            }
        }
        _ => return Err(BadWire),
    }
    Ok(())
}

/// Appends a field of bytes.
pub(super) fn put_bytes(message: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    message.push(number << 3 | 2);
    put_varint(message, bytes.len() as u64);
    message.extend_from_slice(bytes);
}

/// Appends a field with a number; 0 is left out, as the protocol has it.
pub(super) fn put_number(message: &mut Vec<u8>, number: u8, value: u64) {
    if value != 0 {
        message.push(number << 3);
        put_varint(message, value);
    }
}

fn put_varint(message: &mut Vec<u8>, mut value: u64) {
    while value >= 0x80 {
        message.push(value as u8 | 0x80);
        value >>= 7;
    }
    message.push(value as u8);
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn fields_are_read_in_place() {
        let mut message = Vec::new();
        put_bytes(&mut message, 1, b"name");
        put_number(&mut message, 2, 300);
        let mut read = fields(&message);
        assert_eq!(read.next(), Ok(Some((1, Value::Bytes(b"name")))));
        assert_eq!(read.next(), Ok(Some((2, Value::Varint(300)))));
        assert_eq!(read.next(), Ok(None));
        assert_eq!(fields(&[0x0a, 5, b'x']).next(), Err(BadWire), "shorter than it says");
        assert_eq!(fields(&[0x0b]).next(), Err(BadWire), "a group");
        assert_eq!(fields(&[0x80; 11]).next(), Err(BadWire), "an endless number");
    }

    proptest! {
        #![proptest_config(crate::fuzz::cases())]

        #[test]
        fn any_bytes_end(message in proptest::collection::vec(any::<u8>(), 0..500)) {
            let mut read = fields(&message);
            let mut seen = 0;
            while let Ok(Some(_)) = read.next() {
                seen += 1;
                prop_assert!(seen <= message.len());
            }
        }
    }
}
