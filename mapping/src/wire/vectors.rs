//! The octets of the test vectors, and their meaning as messages.

/// The octets of a hexadecimal text; blanks between them do not matter.
pub(crate) fn octets(text: &str) -> Vec<u8> {
    let digits: Vec<u8> =
        text.chars().filter_map(|digit| digit.to_digit(16).map(|value| value as u8)).collect();
    digits.chunks_exact(2).map(|pair| pair[0] << 4 | pair[1]).collect()
}

/// The shared secret of every MAC.
pub(crate) const SECRET: &[u8] = b"lisp-shared-secret";

pub(crate) const C4: &str = "\
    10 80 00 01 01 02 03 04 05 06 07 08 00 01 c6 33 \
    64 07 00 01 c0 00 02 01 00 20 00 01 cb 00 71 05";

pub(crate) const C5: &str = "\
    80 00 00 00 45 00 00 3c 00 00 00 00 40 11 7c aa \
    c0 00 02 01 cb 00 71 05 10 f6 10 f6 00 28 96 af \
    10 80 00 01 01 02 03 04 05 06 07 08 00 01 c6 33 \
    64 07 00 01 c0 00 02 01 00 20 00 01 cb 00 71 05";

pub(crate) const C6: &str = "\
    20 00 00 01 01 02 03 04 05 06 07 08 00 00 05 a0 \
    02 18 10 00 00 00 00 01 cb 00 71 00 01 4b ff 00 \
    00 05 00 01 c0 00 02 81 01 19 ff 00 00 01 00 02 \
    20 01 0d b8 00 0b 00 00 00 00 00 00 00 00 00 01";

pub(crate) const C7: &str = "\
    20 00 00 01 01 02 03 04 05 06 07 08 00 00 00 0f \
    00 18 20 00 00 00 00 01 c6 33 64 00";

pub(crate) const C8: &str = "\
    38 00 01 01 11 22 33 44 55 66 77 88 01 01 00 14 \
    55 02 00 8c f4 7f fc 94 55 4d b5 32 62 a0 c6 97 \
    f9 bc 98 50 00 00 05 a0 01 18 10 00 00 00 00 01 \
    cb 00 71 00 01 64 ff 00 00 05 00 01 c0 00 02 81";

pub(crate) const C9: &str = "\
    38 00 01 01 11 22 33 44 55 66 77 88 01 01 00 0c \
    f9 c6 92 08 44 c8 3e 65 8d de b0 33 00 00 05 a0 \
    01 18 10 00 00 00 00 01 cb 00 71 00 01 64 ff 00 \
    00 05 00 01 c0 00 02 81";

pub(crate) const C10: &str = "\
    38 00 01 01 11 22 33 44 55 66 77 88 01 02 00 10 \
    b8 78 c5 f2 c5 24 29 cd 5e d5 59 92 cf ad fc e2 \
    00 00 05 a0 01 18 10 00 00 00 00 01 cb 00 71 00 \
    01 64 ff 00 00 05 00 01 c0 00 02 81";

pub(crate) const C11: &str = "\
    38 00 01 01 11 22 33 44 55 66 77 88 01 02 00 20 \
    5f 5f b8 51 0f 95 b4 9d 8a 88 7a c3 d6 d0 c2 d0 \
    47 4f a4 80 fd 81 ec 28 fb d0 b1 2a 98 ad dd 39 \
    00 00 05 a0 01 18 10 00 00 00 00 01 cb 00 71 00 \
    01 64 ff 00 00 05 00 01 c0 00 02 81";

pub(crate) const C12: &str = "\
    38 00 01 01 11 22 33 44 55 66 77 88 01 03 00 10 \
    ee fe 5f c8 5b 3f 50 ea df c1 b2 a1 5e 28 20 d9 \
    00 00 05 a0 01 18 10 00 00 00 00 01 cb 00 71 00 \
    01 64 ff 00 00 05 00 01 c0 00 02 81";

pub(crate) const C13: &str = "\
    40 00 00 01 11 22 33 44 55 66 77 88 01 03 00 10 \
    40 31 af 0b 50 da 76 39 bc ed 25 86 4c af 1e d5 \
    00 00 05 a0 01 18 10 00 00 00 00 01 cb 00 71 00 \
    01 64 ff 00 00 05 00 01 c0 00 02 81";

pub(crate) const C14: &str = "\
    50 00 00 01 11 22 33 44 55 66 77 88 01 03 00 10 \
    dc 3c 34 1a 4a 03 5c 90 9a 78 59 0c 27 ce 00 f6 \
    00 00 05 a0 01 18 10 00 00 00 00 01 cb 00 71 00 \
    01 64 ff 00 00 05 00 01 c0 00 02 81";

pub(crate) const C15: &str = "\
    3a 00 01 01 11 22 33 44 55 66 77 88 01 02 00 10 \
    cd b7 cd 21 3c 54 ab db 6b ae b6 c5 2c 68 68 41 \
    00 00 05 a0 01 18 10 00 00 00 00 01 cb 00 71 00 \
    01 64 ff 00 00 05 00 01 c0 00 02 81 00 01 02 03 \
    04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 00 00 00 00 \
    00 00 00 64";

pub(crate) const C16: &str = "\
    3a 00 01 01 11 22 33 44 55 66 77 88 01 02 00 10 \
    b2 75 b8 e7 24 01 c7 7c 70 46 b1 8c 61 60 60 2c \
    00 00 05 a0 01 18 10 00 00 00 00 01 cb 00 71 00 \
    01 64 ff 00 00 05 00 01 c0 00 02 81 00 01 02 03 \
    04 05 06 07 08 09 0a 0b 0c 0d 0e 0f 00 00 00 00 \
    00 00 00 64";

pub(crate) const C17: &str = "\
    40 03 00 00 02 20 00 0a 00 00 00 2a 00 01 cb 00 \
    71 00";

pub(crate) const C18: &str = "\
    00 11 69 65 74 66 00";

pub(crate) const C20: &str = "\
    11 00 20 01 a1 a2 a3 a4 a5 a6 a7 a8 00 01 cb 00 \
    71 00 00 01 c0 00 02 81 00 20 00 01 c6 33 64 07";

pub(crate) const C21: &str = "\
    12 80 00 01 b1 b2 b3 b4 b5 b6 b7 b8 00 00 00 01 \
    c0 00 02 01 00 18 00 01 cb 00 71 00";

pub(crate) const C22: &str = "\
    28 00 00 01 b1 b2 b3 b4 b5 b6 b7 b8 00 00 05 a0 \
    01 18 10 00 00 00 00 01 cb 00 71 00 01 64 ff 00 \
    00 07 00 01 c0 00 02 81";

pub(crate) const C23: &str = "\
    60 00 00 01 01 02 03 04 05 06 07 08 00 00 05 a0 \
    01 20 30 00 00 00 00 02 20 01 0d b8 00 00 00 00 \
    00 00 00 00 00 00 00 00 01 64 ff 00 00 01 00 01 \
    c0 00 02 65";
