//! AMF0 values: the encoding of RTMP commands and metadata.
//!
//! Decoding is bounded in depth ([`MAX_DEPTH`]) and in values ([`MAX_VALUES`]); a claimed count reserves nothing.
//! Text that is not UTF-8 is read with replacement characters. References and AMF3 values are not read.
#![deny(clippy::disallowed_methods)]

use bytes::{BufMut, BytesMut};

/// Deepest nesting of objects and arrays that is read.
pub const MAX_DEPTH: u32 = 16;
/// Most values one [`Decoder`] reads.
pub const MAX_VALUES: u32 = 4096;

const OBJECT_END: u8 = 9;

/// Why bytes are not AMF0. The sender is to blame.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Amf0Error {
    /// The bytes end inside a value.
    #[error("the value ends too early")]
    Truncated,
    /// A type that is reserved, unknown or not read here.
    #[error("value type {0} is not supported")]
    UnsupportedType(u8),
    /// Deeper than [`MAX_DEPTH`].
    #[error("values are nested too deeply")]
    TooDeep,
    /// More than [`MAX_VALUES`].
    #[error("there are too many values")]
    TooManyValues,
}

/// One AMF0 value.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// A number.
    Number(f64),
    /// A truth value.
    Boolean(bool),
    /// Text, short or long; also an XML document.
    String(String),
    /// An anonymous object; also an object of a class, whose name is dropped.
    Object(Vec<(String, Value)>),
    /// Null.
    Null,
    /// Undefined.
    Undefined,
    /// An associative array.
    EcmaArray(Vec<(String, Value)>),
    /// An array without keys.
    StrictArray(Vec<Value>),
    /// Milliseconds since the Unix epoch, UTC.
    Date(f64),
}

impl Value {
    /// Text from anything that becomes a `String`.
    pub fn text(text: impl Into<String>) -> Self {
        Self::String(text.into())
    }

    /// The text, if this is text.
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::String(text) => Some(text),
            _ => None,
        }
    }

    /// The number, if this is a number.
    pub fn as_number(&self) -> Option<f64> {
        match self {
            Self::Number(number) => Some(*number),
            _ => None,
        }
    }

    /// The property `key` of an object or associative array.
    pub fn get(&self, key: &str) -> Option<&Value> {
        match self {
            Self::Object(properties) | Self::EcmaArray(properties) => {
                properties.iter().find(|(name, _)| name == key).map(|(_, value)| value)
            }
            _ => None,
        }
    }
}

/// Appends `value` to `out`. A property name longer than 65,535 bytes is cut at a character boundary.
pub fn encode(value: &Value, out: &mut BytesMut) {
    match value {
        Value::Number(number) => {
            out.put_u8(0);
            out.put_f64(*number);
        }
        Value::Boolean(boolean) => {
            out.put_u8(1);
            out.put_u8(u8::from(*boolean));
        }
        Value::String(text) => match u16::try_from(text.len()) {
            Ok(_) => {
                out.put_u8(2);
                put_short_text(text, out);
            }
            Err(_) => {
                out.put_u8(12);
                let length = u32::try_from(text.len()).unwrap_or(u32::MAX);
                out.put_u32(length);
                out.put_slice(&text.as_bytes()[..length as usize]);
            }
        },
        Value::Object(properties) => {
            out.put_u8(3);
            put_properties(properties, out);
        }
        Value::Null => out.put_u8(5),
        Value::Undefined => out.put_u8(6),
        Value::EcmaArray(properties) => {
            out.put_u8(8);
            out.put_u32(u32::try_from(properties.len()).unwrap_or(u32::MAX));
            put_properties(properties, out);
        }
        Value::StrictArray(values) => {
            out.put_u8(10);
            out.put_u32(u32::try_from(values.len()).unwrap_or(u32::MAX));
            values.iter().for_each(|value| encode(value, out));
        }
        Value::Date(milliseconds) => {
            out.put_u8(11);
            out.put_f64(*milliseconds);
            out.put_u16(0);
        }
    }
}

fn put_short_text(text: &str, out: &mut BytesMut) {
    let cut = &text[..text.floor_char_boundary(usize::from(u16::MAX))];
    out.put_u16(u16::try_from(cut.len()).unwrap_or(u16::MAX));
    out.put_slice(cut.as_bytes());
}

fn put_properties(properties: &[(String, Value)], out: &mut BytesMut) {
    for (name, value) in properties {
        put_short_text(name, out);
        encode(value, out);
    }
    out.put_slice(&[0, 0, OBJECT_END]);
}

/// Reads values one after the other from the bytes of one message.
#[derive(Debug)]
pub struct Decoder<'a> {
    rest: &'a [u8],
    values_left: u32,
}

impl<'a> Decoder<'a> {
    /// Reads from the front of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, values_left: MAX_VALUES }
    }

    /// The next value; `None` at the end.
    ///
    /// # Errors
    /// [`Amf0Error`] if the bytes are not AMF0 or exceed a bound; the decoder is then of no further use.
    pub fn next_value(&mut self) -> Result<Option<Value>, Amf0Error> {
        if self.rest.is_empty() {
            return Ok(None);
        }
        self.value(MAX_DEPTH).map(Some)
    }

    fn value(&mut self, depth_left: u32) -> Result<Value, Amf0Error> {
        self.values_left = self.values_left.checked_sub(1).ok_or(Amf0Error::TooManyValues)?;
        let depth_left = depth_left.checked_sub(1).ok_or(Amf0Error::TooDeep)?;
        match self.byte()? {
            0 => Ok(Value::Number(self.number()?)),
            1 => Ok(Value::Boolean(self.byte()? != 0)),
            2 => Ok(Value::String(self.short_text()?)),
            3 => Ok(Value::Object(self.properties(depth_left)?)),
            5 => Ok(Value::Null),
            6 => Ok(Value::Undefined),
            8 => {
                let count = u32::from_be_bytes(self.array()?);
                Ok(Value::EcmaArray(self.ecma_properties(count, depth_left)?))
            }
            10 => {
                let count = u32::from_be_bytes(self.array()?);
                let mut values = Vec::new();
                for _ in 0..count {
                    values.push(self.value(depth_left)?);
                }
                Ok(Value::StrictArray(values))
            }
            11 => {
                let milliseconds = self.number()?;
                self.take(2)?;
                Ok(Value::Date(milliseconds))
            }
            12 | 15 => {
                let length = u32::from_be_bytes(self.array()?) as usize;
                Ok(Value::String(lossy(self.take(length)?)))
            }
            16 => {
                self.short_text()?;
                Ok(Value::Object(self.properties(depth_left)?))
            }
            other => Err(Amf0Error::UnsupportedType(other)),
        }
    }

    fn properties(&mut self, depth_left: u32) -> Result<Vec<(String, Value)>, Amf0Error> {
        let mut properties = Vec::new();
        loop {
            let name = self.short_text()?;
            if name.is_empty() && self.rest.first() == Some(&OBJECT_END) {
                self.take(1)?;
                return Ok(properties);
            }
            properties.push((name, self.value(depth_left)?));
        }
    }

    /// Some encoders leave out the end marker when the array is the last thing in the message.
    fn ecma_properties(&mut self, count: u32, depth_left: u32) -> Result<Vec<(String, Value)>, Amf0Error> {
        let mut properties = Vec::new();
        loop {
            if self.rest.is_empty() && properties.len() >= count as usize {
                return Ok(properties);
            }
            let name = self.short_text()?;
            if name.is_empty() && self.rest.first() == Some(&OBJECT_END) {
                self.take(1)?;
                return Ok(properties);
            }
            properties.push((name, self.value(depth_left)?));
        }
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Amf0Error> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or(Amf0Error::Truncated)?;
        self.rest = rest;
        Ok(head)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Amf0Error> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or(Amf0Error::Truncated)?;
        self.rest = rest;
        Ok(*head)
    }

    fn byte(&mut self) -> Result<u8, Amf0Error> {
        self.array::<1>().map(|[byte]| byte)
    }

    fn number(&mut self) -> Result<f64, Amf0Error> {
        self.array().map(f64::from_be_bytes)
    }

    fn short_text(&mut self) -> Result<String, Amf0Error> {
        let length = u16::from_be_bytes(self.array()?);
        self.take(usize::from(length)).map(lossy)
    }
}

fn lossy(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

#[cfg(test)]
mod tests;
