//! Header blocks that cannot be decoded: the `hpack` families of RFC 7541.

use super::case::{Case, Expect, row};
use super::wire::{COMPRESSION_ERROR, flag, get, headers, integer, pseudo, string};

/// A decoding error is a connection error (RFC 9113 4.3).
const BROKEN: Expect = Expect::ConnectionError(&[COMPRESSION_ERROR]);

pub(super) fn cases() -> Vec<Case> {
    let behind = |id, what, extra: Vec<u8>| {
        row(id, what, &[headers(1, flag::WHOLE, &[pseudo("GET", "/"), extra].concat())], BROKEN)
    };
    let before = |id, what, first: Vec<u8>| {
        row(id, what, &[headers(1, flag::WHOLE, &[first, pseudo("GET", "/")].concat())], BROKEN)
    };
    // A literal whose value says that it is Huffman code.
    let huffman =
        |bytes: &[u8]| [vec![0], string(b"x-test"), vec![0x80 | bytes.len() as u8], bytes.to_vec()].concat();
    vec![
        behind("hpack/2.3.3/1", "indexed field beyond both tables", integer(0x80, 7, 70)),
        behind("hpack/2.3.3/2", "name beyond both tables", [integer(0x40, 6, 70), string(b"x")].concat()),
        behind("hpack/4.2/1", "size update at the end of a block", integer(0x20, 5, 1)),
        // 'aaaaaa' is 0b00011 six times, 30 bits: the bits of each row follow.
        behind("hpack/5.2/1", "padding of more than 7 bits", huffman(&[0x18, 0xc6, 0x31, 0x8f, 0xff])),
        behind("hpack/5.2/2", "padding that is not the start of EOS", huffman(&[0x18, 0xc6, 0x31, 0x8c])),
        behind("hpack/5.2/3", "EOS", huffman(&[0xff, 0xff, 0xff, 0xfc])),
        behind("hpack/6.1/1", "index 0", vec![0x80]),
        before("hpack/6.3/1", "size update above SETTINGS_HEADER_TABLE_SIZE", integer(0x20, 5, 4097)),
        behind("hpack/5.1/1", "integer that never ends", [vec![0xff], vec![0xff; 12]].concat()),
        behind("hpack/5.2/4", "string longer than the block", vec![0, 10, b'x']),
        row(
            "hpack/2.3.3/3",
            "a field that was evicted",
            &[
                headers(1, flag::WHOLE, &[pseudo("GET", "/"), vec![0x40, 1, b'a', 1, b'b']].concat()),
                headers(3, flag::WHOLE, &[integer(0x20, 5, 0), pseudo("GET", "/"), vec![0x80 | 62]].concat()),
                get(5, "/"),
            ],
            BROKEN,
        ),
    ]
}
