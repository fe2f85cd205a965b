//! Finds what has to be edited in an event's JSON, and checks the rest, in one pass without allocation.
//!
//! Accepts what RFC 8259 does, which is what serde_json accepts and numbers of any size besides.

use std::ops::Range;

use super::PayloadError;

/// Deepest nesting that is followed: serde_json's own limit, which clients in Rust have too.
const MAX_DEPTH: usize = 127;

/// Where the members that matter lie in an event's JSON object.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Layout {
    /// The id's value: a string with its quotes, a number, `true` or `false`.
    pub(super) id: Range<usize>,
    /// What to cut out to remove the id member, one comma included where there is one.
    pub(super) id_member: Range<usize>,
    /// The value of `attributes`, in any casing.
    pub(super) attributes: Option<Range<usize>>,
    /// Position of the object's closing brace.
    pub(super) close: usize,
    /// Members of the object, the id included.
    pub(super) members: usize,
}

/// Reads the layout of an event.
pub(super) fn layout(json: &[u8]) -> Result<Layout, PayloadError> {
    if std::str::from_utf8(json).is_err() {
        return Err(PayloadError::InvalidJson);
    }
    let mut scanner = Scanner { json, at: 0 };
    scanner.skip_space();
    if scanner.peek() != Some(b'{') {
        scanner
            .skip_value(0)
            .and_then(|()| scanner.end())
            .ok_or(PayloadError::InvalidJson)?;
        return Err(PayloadError::NotAnObject);
    }
    let found = scanner.event().ok_or(PayloadError::InvalidJson)?;
    scanner.end().ok_or(PayloadError::InvalidJson)?;
    if found.id.is_empty() {
        Err(PayloadError::MissingId)
    } else {
        Ok(found)
    }
}

/// Finds the id alone and looks no further: for payloads that are passed on as they are.
pub(super) fn id_only(json: &[u8]) -> Result<Range<usize>, PayloadError> {
    let mut scanner = Scanner { json, at: 0 };
    scanner.skip_space();
    if scanner.peek() != Some(b'{') {
        return layout(json).map(|found| found.id);
    }
    scanner.at += 1;
    scanner
        .first_id()
        .ok_or_else(|| layout(json).err().unwrap_or(PayloadError::MissingId))
}

struct Scanner<'a> {
    json: &'a [u8],
    at: usize,
}

/// Eight bytes of `byte`.
const fn eight(byte: u8) -> u64 {
    u64::from_le_bytes([byte; 8])
}

/// How many bytes, from the first, a JSON string may hold as they are: all but `"`, `\` and control characters. Finds
/// the first exception without looking at each byte ("Bit Twiddling Hacks", determining if a word has a byte less than n,
/// or equal to n). Looks at whole groups of eight only.
#[inline]
fn plain_prefix(bytes: &[u8]) -> usize {
    let below = |word: u64, limit: u8| word.wrapping_sub(eight(limit)) & !word & eight(0x80);
    let (groups, _) = bytes.as_chunks::<8>();
    for (index, group) in groups.iter().enumerate() {
        let word = u64::from_le_bytes(*group);
        let found =
            below(word, 0x20) | below(word ^ eight(b'"'), 1) | below(word ^ eight(b'\\'), 1);
        // A branch that is nearly always foreseen, so that a group does not wait for what was found in the one before.
        if found != 0 {
            // Marks behind the first may be wrong, the first is not.
            return index * 8 + (found.trailing_zeros() / 8) as usize;
        }
    }
    groups.len() * 8
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.json.get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    fn expect(&mut self, byte: u8) -> Option<()> {
        (self.peek()? == byte).then(|| self.at += 1)
    }

    fn end(&mut self) -> Option<()> {
        self.skip_space();
        (self.at == self.json.len()).then_some(())
    }

    /// The whole object, from its opening brace.
    fn event(&mut self) -> Option<Layout> {
        let mut found = Layout::default();
        self.expect(b'{')?;
        let mut separator = self.at;
        loop {
            self.skip_space();
            if found.members == 0 && self.peek() == Some(b'}') {
                break;
            }
            let start = self.at;
            let key = self.key()?;
            let value_start = self.at;
            self.skip_value(1)?;
            let value = value_start..self.at;
            let is_id =
                found.id.is_empty() && self.names(&key, b"id") && self.can_be_id(value_start);
            if is_id {
                let cut_from = if found.members == 0 { start } else { separator };
                found.id = value;
                found.id_member = cut_from..self.at;
            } else if self.names(&key, b"attributes") {
                found.attributes = Some(value);
            }
            found.members += 1;
            self.skip_space();
            match self.peek()? {
                b'}' => break,
                b',' => separator = self.at,
                _ => return None,
            }
            self.at += 1;
            if is_id && found.members == 1 {
                // The id was the first member: its comma is the one behind it.
                found.id_member.end = self.at;
            }
        }
        found.close = self.at;
        self.at += 1;
        Some(found)
    }

    /// The first id among the members, nothing behind it looked at.
    fn first_id(&mut self) -> Option<Range<usize>> {
        loop {
            self.skip_space();
            let key = self.key()?;
            let start = self.at;
            self.skip_value(1)?;
            if self.names(&key, b"id") && self.can_be_id(start) {
                return Some(start..self.at);
            }
            self.skip_space();
            self.expect(b',')?;
        }
    }

    /// A member's key and its colon; returns the key between its quotes.
    fn key(&mut self) -> Option<Range<usize>> {
        let start = self.at + 1;
        self.skip_string()?;
        let key = start..self.at - 1;
        self.skip_space();
        self.expect(b':')?;
        self.skip_space();
        Some(key)
    }

    /// Whether a key equals `name` without regard to case, escapes resolved.
    fn names(&self, key: &Range<usize>, name: &[u8]) -> bool {
        let raw = &self.json[key.clone()];
        // Escapes make a key longer than what it says.
        if raw.len() > name.len() && raw.contains(&b'\\') {
            let quoted = &self.json[key.start - 1..=key.end];
            let text = serde_json::from_slice::<String>(quoted);
            return text.is_ok_and(|text| text.as_bytes().eq_ignore_ascii_case(name));
        }
        raw.eq_ignore_ascii_case(name)
    }

    /// An id is a scalar; `null` and an empty string name nothing.
    fn can_be_id(&self, value: usize) -> bool {
        match self.json[value] {
            b'"' => self.json.get(value + 1) != Some(&b'"'),
            b'{' | b'[' | b'n' => false,
            _ => true,
        }
    }

    fn skip_value(&mut self, depth: usize) -> Option<()> {
        match self.peek()? {
            b'"' => self.skip_string(),
            b'{' => self.skip_object(depth),
            b'[' => self.skip_array(depth),
            b't' => self.skip_word(b"true"),
            b'f' => self.skip_word(b"false"),
            b'n' => self.skip_word(b"null"),
            _ => self.skip_number(),
        }
    }

    fn skip_object(&mut self, depth: usize) -> Option<()> {
        if depth >= MAX_DEPTH {
            return None;
        }
        self.at += 1;
        self.skip_space();
        if self.expect(b'}').is_some() {
            return Some(());
        }
        loop {
            self.skip_space();
            self.key()?;
            self.skip_value(depth + 1)?;
            self.skip_space();
            if self.expect(b',').is_none() {
                return self.expect(b'}');
            }
        }
    }

    fn skip_array(&mut self, depth: usize) -> Option<()> {
        if depth >= MAX_DEPTH {
            return None;
        }
        self.at += 1;
        self.skip_space();
        if self.expect(b']').is_some() {
            return Some(());
        }
        loop {
            self.skip_space();
            self.skip_value(depth + 1)?;
            self.skip_space();
            if self.expect(b',').is_none() {
                return self.expect(b']');
            }
        }
    }

    fn skip_string(&mut self) -> Option<()> {
        self.expect(b'"')?;
        loop {
            self.at += plain_prefix(&self.json[self.at..]);
            match self.peek()? {
                b'"' => {
                    self.at += 1;
                    return Some(());
                }
                b'\\' => self.skip_escape()?,
                0..0x20 => return None,
                // One of the last bytes, fewer than eight.
                _ => self.at += 1,
            }
        }
    }

    fn skip_escape(&mut self) -> Option<()> {
        match self.json.get(self.at + 1)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => self.at += 2,
            b'u' => {
                let digits = self.json.get(self.at + 2..self.at + 6)?;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(())?;
                self.at += 6;
            }
            _ => return None,
        }
        Some(())
    }

    fn skip_word(&mut self, word: &[u8]) -> Option<()> {
        self.json[self.at..]
            .starts_with(word)
            .then(|| self.at += word.len())
    }

    fn skip_number(&mut self) -> Option<()> {
        let _ = self.expect(b'-');
        if self.expect(b'0').is_none() {
            self.skip_digits()?;
        }
        if self.expect(b'.').is_some() {
            self.skip_digits()?;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            if matches!(self.peek(), Some(b'+' | b'-')) {
                self.at += 1;
            }
            self.skip_digits()?;
        }
        Some(())
    }

    fn skip_digits(&mut self) -> Option<()> {
        let start = self.at;
        while self.peek().is_some_and(|byte| byte.is_ascii_digit()) {
            self.at += 1;
        }
        (self.at > start).then_some(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn agrees(bytes: &[u8]) -> Result<(), TestCaseError> {
        let plain = |byte: &&u8| **byte >= 0x20 && !matches!(**byte, b'"' | b'\\');
        let groups = &bytes[..bytes.len() / 8 * 8];
        prop_assert_eq!(plain_prefix(bytes), groups.iter().take_while(plain).count());
        Ok(())
    }

    proptest! {
        #[test]
        fn the_first_byte_that_is_not_plain_is_found(bytes: [u8; 8]) {
            agrees(&bytes)?;
        }

        #[test]
        fn nearly_plain_bytes_too(bytes in "[a-z\\x1f-\\x23\\x5b-\\x5d]{0,8}") {
            agrees(bytes.as_bytes())?;
        }

        #[test]
        fn behind_other_bytes_too(bytes in "[a-z]{0,40}[a-z\\x1f-\\x23\\x5b-\\x5d]{0,20}") {
            agrees(bytes.as_bytes())?;
        }
    }
}
