//! H.264: the AVC decoder configuration record (ISO/IEC 14496-15 section 5.3.3) and access units of length-prefixed
//! NAL units.
//!
//! Invariant: what leaves here has 4-byte NAL unit lengths, and its lengths add up.

use super::{CodecError, FrameRate};
use bytes::{BufMut, Bytes, BytesMut};
use h264_reader::nal::sps::SeqParameterSet;
use h264_reader::rbsp::{BitReader, decode_nal};
use mp4_atom::{Atom, Avcc};

/// An H.264 track's configuration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AvcConfig {
    /// The record with `lengthSizeMinusOne` = 3.
    pub avcc: Avcc,
    /// The record's bytes, as a decoder wants them.
    pub record: Bytes,
    /// Width of the picture after cropping, pixels.
    pub width: u32,
    /// Height of the picture after cropping, pixels.
    pub height: u32,
    /// What the stream says of its frame rate, if it does.
    pub frame_rate: Option<FrameRate>,
    source_length_size: u8,
}

/// One access unit.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AccessUnit {
    /// NAL units with 4-byte lengths.
    pub data: Bytes,
    /// It is an IDR picture: decoding can start here.
    pub idr: bool,
}

impl AvcConfig {
    /// Reads an AVC decoder configuration record.
    ///
    /// # Errors
    /// When the record is cut short, has no parameter sets, or its SPS cannot be read.
    pub fn parse(record: &[u8]) -> Result<Self, CodecError> {
        let broken = |what: &dyn std::fmt::Debug| CodecError::AvcConfig(format!("{what:?}"));
        let mut avcc = Avcc::decode_body(&mut std::io::Cursor::new(record)).map_err(|e| broken(&e))?;
        let sps = avcc.sequence_parameter_sets.first().ok_or_else(|| broken(&"no SPS"))?;
        if avcc.picture_parameter_sets.is_empty() {
            return Err(broken(&"no PPS"));
        }
        let rbsp = decode_nal(sps).map_err(|e| broken(&e))?;
        let sps = SeqParameterSet::from_bits(BitReader::new(&rbsp[..])).map_err(|e| broken(&e))?;
        let (width, height) = sps.pixel_dimensions().map_err(|e| broken(&e))?;
        if !(16..=8192).contains(&width) || !(16..=8192).contains(&height) {
            return Err(broken(&format!("picture of {width}x{height} pixels")));
        }
        let timing = sps.vui_parameters.as_ref().and_then(|vui| vui.timing_info.as_ref());
        let frame_rate =
            timing.and_then(|t| FrameRate::new(t.time_scale, t.num_units_in_tick.checked_mul(2)?));
        let source_length_size = avcc.length_size;
        avcc.length_size = 4;
        let mut bytes = Vec::new();
        avcc.encode_body(&mut bytes).map_err(|e| broken(&e))?;
        Ok(Self { avcc, record: bytes.into(), width, height, frame_rate, source_length_size })
    }

    /// The RFC 6381 string, e.g. `avc1.64001f` (MV-03).
    #[must_use]
    pub fn codec_string(&self) -> String {
        format!(
            "avc1.{:02x}{:02x}{:02x}",
            self.avcc.avc_profile_indication, self.avcc.profile_compatibility, self.avcc.avc_level_indication
        )
    }

    /// Checks an access unit of this track and brings it to 4-byte lengths.
    ///
    /// # Errors
    /// When a NAL unit's length runs past the end.
    pub fn access_unit(&self, payload: Bytes) -> Result<AccessUnit, CodecError> {
        let size = usize::from(self.source_length_size);
        let mut idr = false;
        let mut units = 0;
        let mut rest = &payload[..];
        while !rest.is_empty() {
            let left = rest.len();
            let (unit, after) =
                split_unit(rest, size).ok_or(CodecError::AccessUnit { length: size, left })?;
            idr |= unit.first().is_some_and(|header| header & 0x1f == 5);
            units += 1;
            rest = after;
        }
        if size == 4 {
            return Ok(AccessUnit { data: payload, idr });
        }
        let mut data = BytesMut::with_capacity(payload.len() + units * (4 - size));
        let mut rest = &payload[..];
        while let Some((unit, after)) = split_unit(rest, size) {
            #[expect(clippy::cast_possible_truncation, reason = "its length was read from at most 3 bytes")]
            data.put_u32(unit.len() as u32);
            data.put_slice(unit);
            rest = after;
        }
        Ok(AccessUnit { data: data.freeze(), idr })
    }
}

/// The first NAL unit and what follows it; `None` when the length does not fit.
fn split_unit(bytes: &[u8], length_size: usize) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_at_checked(length_size)?;
    let length = length.iter().fold(0usize, |value, byte| value << 8 | usize::from(*byte));
    if length == 0 && rest.is_empty() {
        return Some((&[], &[]));
    }
    rest.split_at_checked(length)
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use proptest::prelude::*;

    /// 1280x720, 30 frames per second, Main profile, as x264 writes it.
    pub(crate) const RECORD_720P30: &[u8] = &[
        0x01, 0x4d, 0x40, 0x1f, 0xff, 0xe1, 0x00, 0x17, 0x67, 0x4d, 0x40, 0x1f, 0xda, 0x01, 0x40, 0x16, 0xec,
        0x04, 0x40, 0x00, 0x00, 0x03, 0x00, 0x40, 0x00, 0x00, 0x0f, 0x23, 0xc6, 0x0c, 0xa8, 0x01, 0x00, 0x04,
        0x68, 0xef, 0x0f, 0xc8,
    ];

    #[test]
    fn a_real_record() {
        let config = AvcConfig::parse(RECORD_720P30).expect("valid");
        assert_eq!((config.width, config.height), (1280, 720));
        assert_eq!(config.codec_string(), "avc1.4d401f");
        assert_eq!(config.record, RECORD_720P30);
        assert_eq!(config.frame_rate, FrameRate::new(30, 1));
    }

    #[test]
    fn lengths_of_other_sizes_become_four_bytes() {
        let mut record = RECORD_720P30.to_vec();
        record[4] = 0xfd; // lengthSizeMinusOne = 1
        let config = AvcConfig::parse(&record).expect("valid");
        let unit = config.access_unit(Bytes::from_static(&[0, 2, 0x65, 9, 0, 1, 0x06])).expect("valid");
        assert_eq!(&unit.data[..], &[0, 0, 0, 2, 0x65, 9, 0, 0, 0, 1, 0x06]);
        assert!(unit.idr);
    }

    #[test]
    fn a_length_past_the_end_is_refused() {
        let config = AvcConfig::parse(RECORD_720P30).expect("valid");
        assert!(config.access_unit(Bytes::from_static(&[0, 0, 0, 9, 0x65])).is_err());
        assert!(config.access_unit(Bytes::from_static(&[0, 0])).is_err());
        let slice = config.access_unit(Bytes::from_static(&[0, 0, 0, 1, 0x41])).expect("valid");
        assert!(!slice.idr);
    }

    proptest! {
        #[test]
        fn any_record(record in proptest::collection::vec(any::<u8>(), 0..80)) {
            let _ = AvcConfig::parse(&record);
        }

        #[test]
        fn any_mutation_of_a_real_record(at in 0..RECORD_720P30.len(), byte in any::<u8>()) {
            let mut record = RECORD_720P30.to_vec();
            record[at] = byte;
            let _ = AvcConfig::parse(&record);
        }

        #[test]
        fn any_access_unit(payload in proptest::collection::vec(any::<u8>(), 0..80), size in 0..4u8) {
            let mut record = RECORD_720P30.to_vec();
            record[4] = 0xfc | size;
            if let Ok(config) = AvcConfig::parse(&record) {
                let _ = config.access_unit(payload.into());
            }
        }
    }
}
