//! `onMetaData`: what a publisher says about its stream. A hint for people; the media itself is the truth.
#![deny(clippy::disallowed_methods)]

use crate::amf0::{Decoder, Value};

/// Longest encoder name kept, bytes.
const ENCODER_BYTES_MAX: usize = 256;

/// What the publisher declares. Absent, absurd and non-finite values are `None`.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Metadata {
    /// Name and version of the encoder, at most 256 bytes.
    pub encoder: Option<String>,
    /// Picture width in pixels.
    pub width: Option<u32>,
    /// Picture height in pixels.
    pub height: Option<u32>,
    /// Frames per second.
    pub frame_rate: Option<f64>,
    /// Video bit rate in kbit/s.
    pub video_kbps: Option<f64>,
    /// Audio bit rate in kbit/s.
    pub audio_kbps: Option<f64>,
    /// Audio samples per second.
    pub audio_sample_rate: Option<u32>,
    /// Audio channels.
    pub audio_channels: Option<u32>,
}

impl Metadata {
    /// Reads a data message, with or without `@setDataFrame`; `None` if it is anything else than metadata.
    pub(crate) fn from_amf0(bytes: &[u8]) -> Option<Self> {
        let mut values = Decoder::new(bytes);
        let mut name = values.next_value().ok()??;
        if name.as_str() == Some("@setDataFrame") {
            name = values.next_value().ok()??;
        }
        if name.as_str() != Some("onMetaData") {
            return None;
        }
        let fields = values.next_value().ok()??;
        let number = |key: &str| {
            let number = fields.get(key).and_then(Value::as_number);
            number.filter(|number| number.is_finite() && *number > 0.0 && *number <= f64::from(u32::MAX))
        };
        let whole = |key: &str| number(key).map(|number| number as u32).filter(|number| *number > 0);
        let stereo = match fields.get("stereo") {
            Some(Value::Boolean(stereo)) => Some(1 + u32::from(*stereo)),
            _ => None,
        };
        Some(Self {
            encoder: fields
                .get("encoder")
                .and_then(Value::as_str)
                .map(|encoder| encoder[..encoder.floor_char_boundary(ENCODER_BYTES_MAX)].to_owned()),
            width: whole("width"),
            height: whole("height"),
            frame_rate: number("framerate").or_else(|| number("videoframerate")),
            video_kbps: number("videodatarate"),
            audio_kbps: number("audiodatarate"),
            audio_sample_rate: whole("audiosamplerate"),
            audio_channels: whole("audiochannels").or(stereo),
        })
    }

    /// The fields as the associative array that goes on the wire.
    pub(crate) fn to_amf0(&self) -> Value {
        let number =
            |key: &str, value: Option<f64>| value.map(|value| (key.to_owned(), Value::Number(value)));
        let fields = [
            number("width", self.width.map(f64::from)),
            number("height", self.height.map(f64::from)),
            number("framerate", self.frame_rate),
            number("videodatarate", self.video_kbps),
            number("audiodatarate", self.audio_kbps),
            number("audiosamplerate", self.audio_sample_rate.map(f64::from)),
            number("audiochannels", self.audio_channels.map(f64::from)),
            self.encoder.clone().map(|encoder| ("encoder".to_owned(), Value::String(encoder))),
        ];
        Value::EcmaArray(fields.into_iter().flatten().collect())
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;
    use crate::amf0::encode;

    fn message(values: &[Value]) -> BytesMut {
        let mut bytes = BytesMut::new();
        values.iter().for_each(|value| encode(value, &mut bytes));
        bytes
    }

    #[test]
    fn what_is_written_is_read() {
        let metadata = Metadata {
            encoder: Some("sigma".to_owned()),
            width: Some(1280),
            height: Some(720),
            frame_rate: Some(29.97),
            video_kbps: Some(3000.0),
            audio_kbps: Some(128.0),
            audio_sample_rate: Some(48_000),
            audio_channels: Some(2),
        };
        let values = [Value::text("@setDataFrame"), Value::text("onMetaData"), metadata.to_amf0()];
        assert_eq!(Metadata::from_amf0(&message(&values)), Some(metadata.clone()));
        assert_eq!(Metadata::from_amf0(&message(&values[1..])), Some(metadata));
    }

    #[test]
    fn absurd_values_are_left_out() {
        let field = |key: &str, value| (key.to_owned(), value);
        let fields = Value::Object(vec![
            field("width", Value::Number(f64::NAN)),
            field("height", Value::Number(-1.0)),
            field("framerate", Value::text("30")),
            field("audiosamplerate", Value::Number(1e300)),
            field("stereo", Value::Boolean(true)),
            field("encoder", Value::text("é".repeat(1000))),
        ]);
        let metadata = Metadata::from_amf0(&message(&[Value::text("onMetaData"), fields])).unwrap();
        assert_eq!(metadata.encoder.as_deref().map(str::len), Some(256));
        assert_eq!(
            metadata,
            Metadata { encoder: metadata.encoder.clone(), audio_channels: Some(2), ..Default::default() }
        );
    }

    #[test]
    fn other_messages_are_not_metadata() {
        for values in [
            vec![],
            vec![Value::Null],
            vec![Value::text("onTextData"), Value::Null],
            vec![Value::text("onMetaData")],
        ] {
            assert_eq!(Metadata::from_amf0(&message(&values)), None);
        }
    }
}
