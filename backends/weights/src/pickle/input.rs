//! The bytes of a pickle, read from front to back.

/// The bytes that are left to read.
pub(super) struct Input<'a> {
    pub(super) bytes: &'a [u8],
}

impl<'a> Input<'a> {
    /// Takes so many bytes.
    pub(super) fn take(&mut self, n: usize) -> Result<&'a [u8], String> {
        let (taken, rest) = self.bytes.split_at_checked(n).ok_or("it is cut off")?;
        self.bytes = rest;
        Ok(taken)
    }

    /// Takes as many bytes as the array has.
    pub(super) fn array<const N: usize>(&mut self) -> Result<[u8; N], String> {
        let (taken, rest) = self.bytes.split_first_chunk().ok_or("it is cut off")?;
        self.bytes = rest;
        Ok(*taken)
    }

    /// Takes one byte.
    pub(super) fn byte(&mut self) -> Result<u8, String> {
        self.array().map(|[byte]| byte)
    }

    /// Bytes behind their length, which is a number of so many bytes.
    pub(super) fn counted(&mut self, length_bytes: usize) -> Result<&'a [u8], String> {
        let length = self.take(length_bytes)?.iter().rev();
        let length = length.fold(0_u64, |n, byte| n << 8 | u64::from(*byte));
        self.take(usize::try_from(length).map_err(|_| "it is cut off")?)
    }

    /// A name up to the end of its line.
    pub(super) fn line(&mut self) -> Result<String, String> {
        let end = self.bytes.iter().position(|byte| *byte == b'\n');
        let line = self.take(end.ok_or("it is cut off")?)?;
        self.take(1)?;
        let line = std::str::from_utf8(line).map_err(|e| format!("a name is not UTF-8: {e}"))?;
        Ok(line.to_owned())
    }
}
