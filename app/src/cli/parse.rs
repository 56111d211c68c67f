//! Sizes and rates as people write them.

use snaptree_core::units::{ByteCount, ByteRate};

/// `4096`, `64K`, `512M`, `20G`, `1.5TiB`: powers of 1024.
pub fn size(text: &str) -> Result<ByteCount, String> {
    let bad = || format!("{text} isn't a size; write 4096, 64K, 512M, 20G or 1T");
    let digits = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(digits);
    let shift = match unit.trim().to_ascii_lowercase().as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(bad()),
    };
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift).map(ByteCount).ok_or_else(bad);
    }
    let bytes = number.parse::<f64>().map_err(|_| bad())? * (1u64 << shift) as f64;
    if bytes < 9e18 { Ok(ByteCount(bytes.round() as u64)) } else { Err(bad()) }
}

/// A size per second: `20M`, `20MB/s`.
pub fn rate(text: &str) -> Result<ByteRate, String> {
    let plain = text.strip_suffix("/s").unwrap_or(text);
    match size(plain) {
        Ok(bytes) if bytes > ByteCount::ZERO => Ok(ByteRate(bytes.0 as f64)),
        _ => Err(format!("{text} isn't a rate; write 20M or 500K, per second")),
    }
}
