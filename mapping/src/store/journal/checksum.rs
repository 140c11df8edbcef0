//! CRC-32C (Castagnoli): finds every burst of up to 32 wrong bits, which is what a torn or worn disk block looks like.

const POLYNOMIAL: u32 = 0x82f6_3b78;
static TABLES: [[u32; 256]; 8] = tables();

/// Continues `crc` over `octets`; starts with 0.
pub(super) fn crc32c(crc: u32, octets: &[u8]) -> u32 {
    let mut crc = !crc;
    let (words, rest) = octets.as_chunks::<8>();
    for [a, b, c, d, e, f, g, h] in words {
        let [w, x, y, z] = crc.to_le_bytes();
        crc = TABLES[7][usize::from(a ^ w)]
            ^ TABLES[6][usize::from(b ^ x)]
            ^ TABLES[5][usize::from(c ^ y)]
            ^ TABLES[4][usize::from(d ^ z)]
            ^ TABLES[3][usize::from(*e)]
            ^ TABLES[2][usize::from(*f)]
            ^ TABLES[1][usize::from(*g)]
            ^ TABLES[0][usize::from(*h)];
    }
    for &octet in rest {
        crc = crc >> 8 ^ TABLES[0][(crc as u8 ^ octet) as usize];
    }
    !crc
}

/// `TABLES[n][octet]`: the remainder of `octet` followed by `n` zero octets.
const fn tables() -> [[u32; 256]; 8] {
    let mut tables = [[0; 256]; 8];
    let mut octet = 0;
    while octet < 256 {
        let mut crc = octet as u32;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 1 == 0 { crc >> 1 } else { crc >> 1 ^ POLYNOMIAL };
            bit += 1;
        }
        tables[0][octet] = crc;
        octet += 1;
    }
    let mut zeros = 1;
    while zeros < 8 {
        let mut octet = 0;
        while octet < 256 {
            let shorter = tables[zeros - 1][octet];
            tables[zeros][octet] = shorter >> 8 ^ tables[0][shorter as usize & 0xff];
            octet += 1;
        }
        zeros += 1;
    }
    tables
}

#[cfg(test)]
mod tests {
    use super::crc32c;

    #[test]
    fn the_vectors_of_rfc_3720_b_4_hold() {
        assert_eq!(crc32c(0, &[0; 32]), 0x8a91_36aa);
        assert_eq!(crc32c(0, &[0xff; 32]), 0x62a8_ab43);
        let counting: Vec<u8> = (0..32).collect();
        assert_eq!(crc32c(0, &counting), 0x46dd_794e);
        assert_eq!(crc32c(0, b"123456789"), 0xe306_9283);
        for split in 0..32 {
            assert_eq!(crc32c(crc32c(0, &counting[..split]), &counting[split..]), 0x46dd_794e);
        }
    }
}
