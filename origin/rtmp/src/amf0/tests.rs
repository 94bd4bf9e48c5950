use proptest::prelude::*;

use super::*;

fn decode(bytes: &[u8]) -> Result<Option<Value>, Amf0Error> {
    Decoder::new(bytes).next_value()
}

fn encoded(value: &Value) -> BytesMut {
    let mut out = BytesMut::new();
    encode(value, &mut out);
    out
}

#[test]
fn values_have_the_bytes_of_the_specification() {
    let properties = vec![("a".to_owned(), Value::Number(1.5)), (String::new(), Value::Null)];
    let cases: [(Value, &[u8]); 9] = [
        (Value::Number(1.0), &[0, 0x3F, 0xF0, 0, 0, 0, 0, 0, 0]),
        (Value::Boolean(true), &[1, 1]),
        (Value::text("ab"), &[2, 0, 2, b'a', b'b']),
        (
            Value::Object(properties.clone()),
            &[3, 0, 1, b'a', 0, 0x3F, 0xF8, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 9],
        ),
        (Value::Null, &[5]),
        (Value::Undefined, &[6]),
        (
            Value::EcmaArray(properties),
            &[8, 0, 0, 0, 2, 0, 1, b'a', 0, 0x3F, 0xF8, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0, 0, 9],
        ),
        (Value::StrictArray(vec![Value::Null, Value::Undefined]), &[10, 0, 0, 0, 2, 5, 6]),
        (Value::Date(0.0), &[11, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0]),
    ];
    for (value, bytes) in cases {
        assert_eq!(&encoded(&value)[..], bytes);
        assert_eq!(decode(bytes), Ok(Some(value)));
    }
}

#[test]
fn long_text_has_a_long_length() {
    let value = Value::String("x".repeat(65_536));
    assert_eq!(&encoded(&value)[..6], &[12, 0, 1, 0, 0, b'x']);
    assert_eq!(decode(&encoded(&value)), Ok(Some(value)));
}

#[test]
fn a_property_name_is_cut_where_a_character_ends() {
    let value = Value::Object(vec![("é".repeat(40_000), Value::Null)]);
    let Ok(Some(Value::Object(properties))) = decode(&encoded(&value)) else { panic!("not an object") };
    assert_eq!(properties[0].0, "é".repeat(32_767));
}

#[test]
fn what_encoders_write_beside_the_specification_is_read() {
    let array = [8, 0, 0, 0, 1, 0, 1, b'a', 5];
    let expected = Value::EcmaArray(vec![("a".to_owned(), Value::Null)]);
    assert_eq!(decode(&array), Ok(Some(expected)), "no end marker");
    let class = [16, 0, 1, b'C', 0, 1, b'a', 5, 0, 0, 9];
    assert_eq!(decode(&class), Ok(Some(Value::Object(vec![("a".to_owned(), Value::Null)]))));
    assert_eq!(decode(&[2, 0, 1, 0xFF]), Ok(Some(Value::text("\u{FFFD}"))), "not UTF-8");
}

#[test]
fn what_cannot_be_read_is_named() {
    let nested = |depth: usize| [10, 0, 0, 0, 1].repeat(depth);
    let cases: [(Vec<u8>, Amf0Error); 9] = [
        (vec![0, 1, 2], Amf0Error::Truncated),
        (vec![2, 0, 5, b'a'], Amf0Error::Truncated),
        (vec![3, 0, 1, b'a'], Amf0Error::Truncated),
        (vec![12, 0xFF, 0xFF, 0xFF, 0xFF, 0], Amf0Error::Truncated),
        (vec![10, 0xFF, 0xFF, 0xFF, 0xFF], Amf0Error::Truncated),
        (vec![7, 0, 0], Amf0Error::UnsupportedType(7)),
        (vec![17, 4], Amf0Error::UnsupportedType(17)),
        (nested(1000), Amf0Error::TooDeep),
        ([&[10, 0xFF, 0xFF, 0xFF, 0xFF][..], &[5; 5000]].concat(), Amf0Error::TooManyValues),
    ];
    for (bytes, error) in cases {
        assert_eq!(decode(&bytes), Err(error), "{:?}", &bytes[..bytes.len().min(9)]);
    }
}

fn any_value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        any::<i32>().prop_map(|number| Value::Number(f64::from(number) / 8.0)),
        any::<bool>().prop_map(Value::Boolean),
        proptest::collection::vec(any::<char>(), 0..8).prop_map(|text| Value::text(String::from_iter(text))),
        Just(Value::Null),
        Just(Value::Undefined),
        any::<i32>().prop_map(|milliseconds| Value::Date(f64::from(milliseconds))),
    ];
    leaf.prop_recursive(4, 32, 6, |inner| {
        let name = proptest::collection::vec(any::<char>(), 0..5).prop_map(String::from_iter);
        let properties = proptest::collection::vec((name, inner.clone()), 0..6);
        prop_oneof![
            properties.clone().prop_map(Value::Object),
            properties.prop_map(Value::EcmaArray),
            proptest::collection::vec(inner, 0..6).prop_map(Value::StrictArray),
        ]
    })
}

proptest! {
    #[test]
    fn what_is_encoded_is_decoded(value in any_value()) {
        prop_assert_eq!(decode(&encoded(&value)), Ok(Some(value)));
    }

    #[test]
    fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(prop_oneof![0u8..20, any::<u8>()], 0..300)) {
        let mut decoder = Decoder::new(&bytes);
        while let Ok(Some(_)) = decoder.next_value() {}
    }

    #[test]
    fn damaged_values_are_read_or_refused(value in any_value(), at in any::<prop::sample::Index>(), byte: u8) {
        let mut bytes = encoded(&value);
        let at = at.index(bytes.len());
        bytes[at] = byte;
        let _ = decode(&bytes);
        let _ = decode(&bytes[..at]);
    }
}
