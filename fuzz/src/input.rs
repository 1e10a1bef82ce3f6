//! [`Input`]: what an adversary does next, read from bytes.

/// Bytes that a fuzzer made, read from the front. Past the end everything is 0, so every string of
/// bytes is a whole script and a byte more or less changes only what comes after it.
#[derive(Clone, Debug)]
pub struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    /// The script that these bytes are.
    pub const fn new(bytes: &'a [u8]) -> Self {
        Input(bytes)
    }

    /// True at the end: the script is over.
    pub const fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn array<const N: usize>(&mut self) -> [u8; N] {
        let mut array = [0; N];
        let bytes = self.bytes(N);
        array[..bytes.len()].copy_from_slice(bytes);
        array
    }

    /// The next byte.
    pub fn u8(&mut self) -> u8 {
        let [byte] = self.array();
        byte
    }

    /// The next two bytes as a number.
    pub fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    /// The next four bytes as a number.
    pub fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    /// The next eight bytes as a number.
    pub fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }

    /// Yes or no.
    pub fn flag(&mut self) -> bool {
        self.u8() & 1 != 0
    }

    /// A number below `bound`, which is 1 to 256: one byte.
    pub fn below(&mut self, bound: usize) -> usize {
        usize::from(self.u8()) % bound
    }

    /// A number of 32 bits that is mostly a little less or more than `around`.
    pub fn near(&mut self, around: u32) -> u32 {
        match self.u8() {
            255 => self.u32(),
            254 => around.wrapping_add(u32::from(self.u16())),
            253 => around.wrapping_sub(u32::from(self.u16())),
            step => around.wrapping_add(u32::from(step)).wrapping_sub(8),
        }
    }

    /// The next `len` bytes, or as many as there are.
    pub fn bytes(&mut self, len: usize) -> &'a [u8] {
        let (head, tail) = self.0.split_at(len.min(self.0.len()));
        self.0 = tail;
        head
    }

    /// A byte that says how many, and as many bytes.
    pub fn blob(&mut self) -> &'a [u8] {
        let len = usize::from(self.u8());
        self.bytes(len)
    }

    /// A length in bytes: mostly short, at most `most`.
    pub fn len(&mut self, most: usize) -> usize {
        let len = match self.u8() {
            long @ 192.. => (usize::from(long) - 191) << 10,
            short => usize::from(short),
        };
        len.min(most)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn past_the_end_everything_is_nought() {
        let mut input = Input::new(&[7, 1]);
        assert_eq!((input.u8(), input.u16(), input.is_empty()), (7, 1, true));
        assert_eq!((input.u64(), input.below(3), input.flag()), (0, 0, false));
        assert_eq!((input.bytes(4), input.blob()), (&[][..], &[][..]));
    }

    #[test]
    fn near_is_near_or_anything() {
        assert_eq!(Input::new(&[8]).near(5), 5);
        assert_eq!(Input::new(&[0]).near(5), 5_u32.wrapping_sub(8));
        assert_eq!(Input::new(&[254, 0, 1]).near(5), 261);
        assert_eq!(Input::new(&[255, 1, 2, 3, 4]).near(5), 0x0403_0201);
    }

    #[test]
    fn lengths_keep_their_bound() {
        assert_eq!(Input::new(&[100]).len(1500), 100);
        assert_eq!(Input::new(&[192]).len(1500), 1024);
        assert_eq!(Input::new(&[255]).len(1500), 1500);
    }
}
