//! Where JSON strings may end: quotes, backslashes and control characters, found for many bytes at a time.

use wide::u8x16;

/// Bytes looked at together: one for each bit of a word.
const BLOCK: usize = 64;

/// The marks of a text, block by block as they are asked for.
pub(super) struct Marks<'a> {
    text: &'a [u8],
    /// Where the block begins that `bits` are of.
    block: usize,
    /// A bit for each byte of the block, from the lowest; set where there is a mark.
    bits: u64,
    /// Whether all bytes of the blocks looked at are ASCII.
    is_ascii: bool,
}

impl<'a> Marks<'a> {
    pub(super) fn new(text: &'a [u8]) -> Self {
        Self {
            text,
            // None yet: to move what was just looked at is to read in whole what was written in parts, and the processor waits for that.
            block: usize::MAX,
            bits: 0,
            is_ascii: true,
        }
    }

    /// The first mark at `at` or behind it; `None` when there is none up to the text's end.
    #[inline]
    pub(super) fn next(&mut self, mut at: usize) -> Option<usize> {
        loop {
            let block = at / BLOCK * BLOCK;
            if block != self.block {
                self.look_at(block);
            }
            let ahead = self.bits >> (at % BLOCK);
            if ahead != 0 {
                return Some(at + ahead.trailing_zeros() as usize);
            }
            at = block + BLOCK;
            if at >= self.text.len() {
                return None;
            }
        }
    }

    /// Whether all that [`Self::next`] has passed over is ASCII.
    pub(super) fn is_ascii(&self) -> bool {
        self.is_ascii
    }

    // Apart from `next`, which is called some twenty times for each time that a block is looked at.
    #[inline(never)]
    fn look_at(&mut self, block: usize) {
        self.block = block;
        let rest = &self.text[block.min(self.text.len())..];
        match rest.first_chunk() {
            Some(whole) => self.take(whole),
            None => {
                // Spaces are no marks.
                let mut padded = [b' '; BLOCK];
                padded[..rest.len()].copy_from_slice(rest);
                self.take(&padded);
            }
        }
    }

    #[inline]
    fn take(&mut self, bytes: &[u8; BLOCK]) {
        let (quote, backslash, control) =
            (u8x16::splat(b'"'), u8x16::splat(b'\\'), u8x16::splat(0x1f));
        let mut beyond_ascii = u8x16::splat(0);
        self.bits = 0;
        let (groups, _) = bytes.as_chunks::<16>();
        for (index, group) in groups.iter().enumerate() {
            let group = u8x16::new(*group);
            let is_control = group.max(control).simd_eq(control);
            let marks = group.simd_eq(quote) | group.simd_eq(backslash) | is_control;
            self.bits |= u64::from(marks.to_bitmask()) << (index * 16);
            beyond_ascii |= group;
        }
        self.is_ascii &= beyond_ascii.to_bitmask() == 0;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_mark(byte: u8) -> bool {
        byte < 0x20 || matches!(byte, b'"' | b'\\')
    }

    fn agrees(text: &[u8]) -> Result<(), TestCaseError> {
        let mut marks = Marks::new(text);
        let mut at = 0;
        while let Some(found) = marks.next(at) {
            prop_assert!(is_mark(text[found]));
            prop_assert!(!text[at..found].iter().copied().any(is_mark));
            at = found + 1;
            if at == text.len() {
                break;
            }
        }
        prop_assert!(!text[at..].iter().copied().any(is_mark));
        prop_assert_eq!(marks.is_ascii(), text.is_ascii());
        Ok(())
    }

    proptest! {
        #[test]
        fn all_marks_are_found_in_any_bytes(text: Vec<u8>) {
            agrees(&text)?;
        }

        #[test]
        fn and_where_there_are_few(text in "[a-zé]{0,90}[a-z\\x1f-\\x23\\x5b-\\x5d]{0,3}[a-z]{0,90}") {
            agrees(text.as_bytes())?;
        }
    }
}
