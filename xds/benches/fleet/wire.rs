//! Reads just as much of a response as the checks need, without copying.
//!
//! The load client must cost less than the server that it measures, so nothing is decoded into messages.

use std::fmt;

/// Bytes that are no response.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) &'static str);

impl fmt::Display for Malformed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "malformed response: {}", self.0)
    }
}

impl std::error::Error for Malformed {}

const PREFIX_BYTES: usize = 5;

/// Puts gRPC messages together from the frames they come in.
#[derive(Debug, Default)]
pub(crate) struct Messages {
    partial: Vec<u8>,
}

impl Messages {
    /// Takes the next bytes of the stream and hands over each message that they complete.
    pub(crate) fn push(
        &mut self,
        mut chunk: &[u8],
        mut each: impl FnMut(&[u8]) -> Result<(), Malformed>,
    ) -> Result<(), Malformed> {
        while !chunk.is_empty() {
            if self.partial.is_empty()
                && let Some(length) = framed_length(chunk)?
                && chunk.len() >= length
            {
                each(&chunk[PREFIX_BYTES..length])?;
                chunk = &chunk[length..];
                continue;
            }
            let wanted = framed_length(&self.partial)?.unwrap_or(PREFIX_BYTES);
            let (head, rest) = chunk.split_at(chunk.len().min(wanted - self.partial.len()));
            self.partial.extend_from_slice(head);
            chunk = rest;
            match framed_length(&self.partial)? {
                Some(length) if self.partial.len() == length => {
                    each(&self.partial[PREFIX_BYTES..])?;
                    self.partial = Vec::new();
                }
                Some(length) => self.partial.reserve_exact(length - self.partial.len()),
                None => {}
            }
        }
        Ok(())
    }
}

/// Length with the prefix, once the prefix is there.
fn framed_length(bytes: &[u8]) -> Result<Option<usize>, Malformed> {
    let Some((prefix, _)) = bytes.split_first_chunk::<PREFIX_BYTES>() else { return Ok(None) };
    let [compressed, length @ ..] = *prefix;
    if compressed != 0 {
        return Err(Malformed("compressed"));
    }
    Ok(Some(PREFIX_BYTES + u32::from_be_bytes(length) as usize))
}

/// One field of a protobuf message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Value<'a> {
    Varint(u64),
    Bytes(&'a [u8]),
    /// Of a fixed size, which nothing here needs.
    Fixed,
}

/// The fields of a protobuf message, by number.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Fields<'a>(pub(crate) &'a [u8]);

impl<'a> Fields<'a> {
    fn varint(&mut self) -> Result<u64, Malformed> {
        let mut value = 0;
        for shift in (0..64).step_by(7) {
            let (&byte, rest) = self.0.split_first().ok_or(Malformed("a number is cut off"))?;
            self.0 = rest;
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok(value);
            }
        }
        Err(Malformed("a number has more than ten bytes"))
    }

    fn take(&mut self, length: u64) -> Result<&'a [u8], Malformed> {
        let length = usize::try_from(length).map_err(|_| Malformed("a field is too long"))?;
        let (taken, rest) = self.0.split_at_checked(length).ok_or(Malformed("a field is cut off"))?;
        self.0 = rest;
        Ok(taken)
    }

    fn field(&mut self) -> Result<(u64, Value<'a>), Malformed> {
        let tag = self.varint()?;
        let value = match tag & 7 {
            0 => Value::Varint(self.varint()?),
            1 => self.take(8).map(|_| Value::Fixed)?,
            2 => {
                let length = self.varint()?;
                Value::Bytes(self.take(length)?)
            }
            5 => self.take(4).map(|_| Value::Fixed)?,
            _ => return Err(Malformed("unknown wire type")),
        };
        Ok((tag >> 3, value))
    }

    /// The first occurrence of a field that holds bytes.
    fn bytes(self, number: u64) -> Result<Option<&'a [u8]>, Malformed> {
        for field in self {
            if let (found, Value::Bytes(bytes)) = field?
                && found == number
            {
                return Ok(Some(bytes));
            }
        }
        Ok(None)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = Result<(u64, Value<'a>), Malformed>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.0.is_empty() {
            return None;
        }
        let field = self.field();
        if field.is_err() {
            self.0 = &[];
        }
        Some(field)
    }
}

/// The envelope of a response; the fields read have the same numbers in both variants.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Response<'a> {
    /// `version_info`, empty where there is none.
    pub(crate) version: &'a [u8],
    pub(crate) type_url: &'a [u8],
    pub(crate) nonce: &'a [u8],
    message: &'a [u8],
}

impl<'a> Response<'a> {
    pub(crate) fn read(message: &'a [u8]) -> Result<Self, Malformed> {
        let mut response = Self { version: &[], type_url: &[], nonce: &[], message };
        for field in Fields(message) {
            match field? {
                (1, Value::Bytes(bytes)) => response.version = bytes,
                (4, Value::Bytes(bytes)) => response.type_url = bytes,
                (5, Value::Bytes(bytes)) => response.nonce = bytes,
                _ => {}
            }
        }
        if response.nonce.is_empty() {
            return Err(Malformed("no nonce"));
        }
        Ok(response)
    }

    /// The entries of `resources`: `Resource` in delta, `Any` in the other variant.
    pub(crate) fn resources(&self) -> impl Iterator<Item = Result<&'a [u8], Malformed>> {
        Fields(self.message).filter_map(|field| match field {
            Ok((2, Value::Bytes(bytes))) => Some(Ok(bytes)),
            Ok(_) => None,
            Err(error) => Some(Err(error)),
        })
    }
}

/// Returns the `Any` inside of a delta `Resource`.
pub(crate) fn any_of_resource(resource: &[u8]) -> Result<&[u8], Malformed> {
    Fields(resource).bytes(2)?.ok_or(Malformed("a resource without content"))
}

/// Returns the name of the cluster and the generation, which is the weight of the first endpoint, of the
/// `ClusterLoadAssignment` inside of an `Any`.
pub(crate) fn assignment(any: &[u8]) -> Result<(&[u8], u32), Malformed> {
    let assignment = Fields(any).bytes(2)?.ok_or(Malformed("an Any without value"))?;
    let name = Fields(assignment).bytes(1)?.ok_or(Malformed("an assignment without name"))?;
    let weight = inside(assignment, &[2, 2, 4])?;
    match Fields(weight).next().transpose()? {
        Some((1, Value::Varint(weight))) => {
            u32::try_from(weight).map(|weight| (name, weight)).map_err(|_| Malformed("a weight is too great"))
        }
        _ => Err(Malformed("an endpoint without weight")),
    }
}

/// Follows the first occurrence of each field number inwards.
fn inside<'a>(message: &'a [u8], path: &[u64]) -> Result<&'a [u8], Malformed> {
    path.iter().try_fold(message, |message, &number| {
        Fields(message).bytes(number)?.ok_or(Malformed("an assignment without endpoints or weights"))
    })
}
