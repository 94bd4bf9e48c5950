//! H.264 between its two wrappings: Annex B as x264 writes it, AVCC as everything else here carries it. Pure.
#![deny(clippy::disallowed_methods)]

use bytes::{BufMut, Bytes};

const SEI: u8 = 6;
const SPS: u8 = 7;
const PPS: u8 = 8;
const DELIMITER: u8 = 9;
const FILLER: u8 = 12;

/// The NAL units between Annex B start codes, without trailing zero bytes.
pub(crate) fn annex_b_units(bytes: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = after_start_code(bytes);
    std::iter::from_fn(move || {
        let unit_and_more = rest?;
        let end = find_start_code(unit_and_more).unwrap_or(unit_and_more.len());
        rest = after_start_code(&unit_and_more[end..]);
        let unit = &unit_and_more[..end];
        let length = unit.iter().rposition(|&byte| byte != 0).map_or(0, |at| at + 1);
        Some(&unit[..length])
    })
    .filter(|unit| !unit.is_empty())
}

/// An access unit in AVCC without what travels in `avcC` or says nothing to a decoder: parameter sets, delimiters,
/// filler and the encoder's signature SEI.
pub(crate) fn avcc_from_annex_b(bytes: &[u8]) -> Bytes {
    let mut out = Vec::with_capacity(bytes.len() + 16);
    for unit in annex_b_units(bytes) {
        if matches!(unit_type(unit), SEI | SPS | PPS | DELIMITER | FILLER) {
            continue;
        }
        if let Ok(length) = u32::try_from(unit.len()) {
            out.put_u32(length);
            out.put_slice(unit);
        }
    }
    out.into()
}

/// The AVCDecoderConfigurationRecord of parameter sets in Annex B, or `None` if there is no SPS or no PPS.
pub(crate) fn decoder_configuration(parameter_sets: &[u8]) -> Option<Bytes> {
    let of = |kind| annex_b_units(parameter_sets).find(|unit| unit_type(unit) == kind);
    let (sps, pps) = (of(SPS)?, of(PPS)?);
    let &[_, profile, compatibility, level, ..] = sps else {
        return None;
    };
    let mut out = Vec::with_capacity(sps.len() + pps.len() + 15);
    out.put_slice(&[1, profile, compatibility, level, 0xff, 0xe1]);
    out.put_u16(sps.len().try_into().ok()?);
    out.put_slice(sps);
    out.put_u8(1);
    out.put_u16(pps.len().try_into().ok()?);
    out.put_slice(pps);
    // Profiles from High on carry the sample format too; everything encoded here is 4:2:0, 8 bit.
    if !matches!(profile, 66 | 77 | 88) {
        out.put_slice(&[0xfd, 0xf8, 0xf8, 0]);
    }
    Some(out.into())
}

fn unit_type(unit: &[u8]) -> u8 {
    unit.first().map_or(0, |byte| byte & 0x1f)
}

fn find_start_code(bytes: &[u8]) -> Option<usize> {
    bytes.windows(3).position(|window| window == [0, 0, 1])
}

fn after_start_code(bytes: &[u8]) -> Option<&[u8]> {
    find_start_code(bytes).map(|at| &bytes[at + 3..])
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPS_UNIT: &[u8] = &[0x67, 100, 0, 31, 0xac];
    const PPS_UNIT: &[u8] = &[0x68, 0xee];

    fn annex_b(units: &[&[u8]], long: bool) -> Vec<u8> {
        let mut out = Vec::new();
        for unit in units {
            out.extend_from_slice(if long { &[0, 0, 0, 1] } else { &[0, 0, 1] });
            out.extend_from_slice(unit);
        }
        out
    }

    #[test]
    fn units_are_found_behind_short_and_long_start_codes() {
        let units: [&[u8]; 3] = [&[0x65, 0, 0, 3, 1], &[0x41], &[0x41, 9]];
        for long in [false, true] {
            assert_eq!(annex_b_units(&annex_b(&units, long)).collect::<Vec<_>>(), units);
        }
        assert_eq!(annex_b_units(&[0, 0, 1]).count(), 0);
        assert_eq!(annex_b_units(&[5, 5, 5]).count(), 0);
    }

    #[test]
    fn an_access_unit_loses_what_the_configuration_carries() {
        let units: [&[u8]; 5] = [&[9, 0xf0], SPS_UNIT, PPS_UNIT, &[6, 5, 1], &[0x65, 1, 2]];
        assert_eq!(avcc_from_annex_b(&annex_b(&units, true)).as_ref(), [0, 0, 0, 3, 0x65, 1, 2]);
    }

    #[test]
    fn the_configuration_record_names_profile_and_both_sets() {
        let record = decoder_configuration(&annex_b(&[SPS_UNIT, PPS_UNIT], true)).unwrap();
        let want = [
            1, 100, 0, 31, 0xff, 0xe1, 0, 5, 0x67, 100, 0, 31, 0xac, 1, 0, 2, 0x68, 0xee, 0xfd, 0xf8, 0xf8, 0,
        ];
        assert_eq!(record.as_ref(), want);
        assert_eq!(decoder_configuration(&annex_b(&[SPS_UNIT], true)), None);
    }
}
