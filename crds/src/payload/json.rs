//! Finds what has to be edited in an event's JSON, and checks the rest, in one pass without allocation.
//!
//! Accepts what RFC 8259 does, which is what serde_json accepts and numbers of any size besides.

use std::ops::Range;

use super::PayloadError;
use super::marks::Marks;

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
    let mut scanner = Scanner::new(json);
    let start = scanner.space(0);
    if scanner.byte(start) != Some(b'{') {
        scanner
            .value(start, 0)
            .and_then(|at| scanner.end(at))
            .ok_or(PayloadError::InvalidJson)?;
        return Err(PayloadError::NotAnObject);
    }
    let found = scanner.event(start).ok_or(PayloadError::InvalidJson)?;
    scanner
        .end(found.close + 1)
        .ok_or(PayloadError::InvalidJson)?;
    if found.id.is_empty() {
        Err(PayloadError::MissingId)
    } else {
        Ok(found)
    }
}

/// Finds the id alone and looks no further: for payloads that are passed on as they are.
pub(super) fn id_only(json: &[u8]) -> Result<Range<usize>, PayloadError> {
    let mut scanner = Scanner::new(json);
    let start = scanner.space(0);
    if scanner.byte(start) != Some(b'{') {
        return layout(json).map(|found| found.id);
    }
    scanner
        .first_id(start + 1)
        .ok_or_else(|| layout(json).err().unwrap_or(PayloadError::MissingId))
}

/// Reads JSON. Each method takes the position where something begins and returns the position behind it, `None` where it
/// is not there: positions that are handed on stay in the processor's registers.
struct Scanner<'a> {
    json: &'a [u8],
    marks: Marks<'a>,
    /// Behind the last escape in a string.
    escaped: usize,
}

/// A member's key: its place between the quotes, and whether it has escapes.
struct Key {
    place: Range<usize>,
    is_escaped: bool,
}

impl<'a> Scanner<'a> {
    fn new(json: &'a [u8]) -> Self {
        Self {
            json,
            marks: Marks::new(json),
            escaped: 0,
        }
    }

    #[inline]
    fn byte(&self, at: usize) -> Option<u8> {
        self.json.get(at).copied()
    }

    #[inline]
    fn space(&self, mut at: usize) -> usize {
        while matches!(self.byte(at), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            at += 1;
        }
        at
    }

    #[inline]
    fn expect(&self, at: usize, byte: u8) -> Option<usize> {
        (self.byte(at)? == byte).then_some(at + 1)
    }

    /// Nothing follows, and what is not ASCII is UTF-8: it can stand in strings only, so the marks have seen it.
    fn end(&self, at: usize) -> Option<()> {
        let is_text = self.marks.is_ascii() || std::str::from_utf8(self.json).is_ok();
        (self.space(at) == self.json.len() && is_text).then_some(())
    }

    /// The whole object, from its opening brace.
    fn event(&mut self, at: usize) -> Option<Layout> {
        let mut found = Layout::default();
        let mut separator = self.expect(at, b'{')?;
        let mut at = separator;
        loop {
            let start = self.space(at);
            if found.members == 0 && self.byte(start) == Some(b'}') {
                found.close = start;
                return Some(found);
            }
            let (key, value) = self.key(start)?;
            let behind = self.value(value, 1)?;
            let is_id = found.id.is_empty() && self.names(&key, b"id") && self.can_be_id(value);
            if is_id {
                let cut_from = if found.members == 0 { start } else { separator };
                found.id = value..behind;
                found.id_member = cut_from..behind;
            } else if self.names(&key, b"attributes") {
                found.attributes = Some(value..behind);
            }
            found.members += 1;
            separator = self.space(behind);
            at = separator + 1;
            match self.byte(separator)? {
                b'}' => {
                    found.close = separator;
                    return Some(found);
                }
                b',' if is_id && found.members == 1 => {
                    // The id was the first member: its comma is the one behind it.
                    found.id_member.end = at;
                }
                b',' => {}
                _ => return None,
            }
        }
    }

    /// The first id among the members, nothing behind it looked at.
    fn first_id(&mut self, mut at: usize) -> Option<Range<usize>> {
        loop {
            let (key, value) = self.key(self.space(at))?;
            let behind = self.value(value, 1)?;
            if self.names(&key, b"id") && self.can_be_id(value) {
                return Some(value..behind);
            }
            at = self.expect(self.space(behind), b',')?;
        }
    }

    /// A member's key and its colon; returns where the value begins, too.
    #[inline]
    fn key(&mut self, at: usize) -> Option<(Key, usize)> {
        let behind = self.string(at)?;
        let key = Key {
            place: at + 1..behind - 1,
            is_escaped: self.escaped > at,
        };
        let value = self.expect(self.space(behind), b':')?;
        Some((key, self.space(value)))
    }

    /// Whether a key equals `name` without regard to case, escapes resolved.
    #[inline]
    fn names(&self, key: &Key, name: &[u8]) -> bool {
        if key.is_escaped {
            return self.names_escaped(key, name);
        }
        key.place.len() == name.len() && self.json[key.place.clone()].eq_ignore_ascii_case(name)
    }

    #[cold]
    fn names_escaped(&self, key: &Key, name: &[u8]) -> bool {
        let quoted = &self.json[key.place.start - 1..=key.place.end];
        let text = serde_json::from_slice::<String>(quoted);
        text.is_ok_and(|text| text.as_bytes().eq_ignore_ascii_case(name))
    }

    /// An id is a scalar; `null` and an empty string name nothing.
    fn can_be_id(&self, value: usize) -> bool {
        match self.json[value] {
            b'"' => self.byte(value + 1) != Some(b'"'),
            b'{' | b'[' | b'n' => false,
            _ => true,
        }
    }

    #[inline]
    fn value(&mut self, at: usize, depth: usize) -> Option<usize> {
        match self.byte(at)? {
            b'"' => self.string(at),
            _ => self.other_value(at, depth),
        }
    }

    fn other_value(&mut self, at: usize, depth: usize) -> Option<usize> {
        match self.byte(at)? {
            b'{' => self.object(at, depth),
            b'[' => self.array(at, depth),
            b't' => self.word(at, b"true"),
            b'f' => self.word(at, b"false"),
            b'n' => self.word(at, b"null"),
            _ => self.number(at),
        }
    }

    fn object(&mut self, at: usize, depth: usize) -> Option<usize> {
        if depth >= MAX_DEPTH {
            return None;
        }
        let mut at = self.space(at + 1);
        if let Some(behind) = self.expect(at, b'}') {
            return Some(behind);
        }
        loop {
            let (_, value) = self.key(at)?;
            let behind = self.value(value, depth + 1)?;
            let separator = self.space(behind);
            match self.expect(separator, b',') {
                Some(next) => at = self.space(next),
                None => return self.expect(separator, b'}'),
            }
        }
    }

    fn array(&mut self, at: usize, depth: usize) -> Option<usize> {
        if depth >= MAX_DEPTH {
            return None;
        }
        let mut at = self.space(at + 1);
        if let Some(behind) = self.expect(at, b']') {
            return Some(behind);
        }
        loop {
            let behind = self.value(at, depth + 1)?;
            let separator = self.space(behind);
            match self.expect(separator, b',') {
                Some(next) => at = self.space(next),
                None => return self.expect(separator, b']'),
            }
        }
    }

    #[inline]
    fn string(&mut self, at: usize) -> Option<usize> {
        let start = self.expect(at, b'"')?;
        let mark = self.marks.next(start)?;
        if self.byte(mark) == Some(b'"') {
            return Some(mark + 1);
        }
        self.escaped_string(mark)
    }

    /// The rest of a string, from its first escape.
    #[cold]
    fn escaped_string(&mut self, mut mark: usize) -> Option<usize> {
        loop {
            match self.byte(mark)? {
                b'"' => return Some(mark + 1),
                b'\\' => self.escaped = self.escape(mark)?,
                _ => return None,
            }
            mark = self.marks.next(self.escaped)?;
        }
    }

    fn escape(&self, at: usize) -> Option<usize> {
        match self.byte(at + 1)? {
            b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 2),
            b'u' => {
                let digits = self.json.get(at + 2..at + 6)?;
                digits.iter().all(u8::is_ascii_hexdigit).then_some(at + 6)
            }
            _ => None,
        }
    }

    fn word(&self, at: usize, word: &[u8]) -> Option<usize> {
        self.json[at..].starts_with(word).then_some(at + word.len())
    }

    fn number(&self, at: usize) -> Option<usize> {
        let mut at = self.expect(at, b'-').unwrap_or(at);
        at = match self.expect(at, b'0') {
            Some(behind) => behind,
            None => self.digits(at)?,
        };
        if let Some(fraction) = self.expect(at, b'.') {
            at = self.digits(fraction)?;
        }
        if matches!(self.byte(at), Some(b'e' | b'E')) {
            at += 1;
            if matches!(self.byte(at), Some(b'+' | b'-')) {
                at += 1;
            }
            at = self.digits(at)?;
        }
        Some(at)
    }

    fn digits(&self, start: usize) -> Option<usize> {
        let digits = self.json[start..].iter();
        let count = digits.take_while(|byte| byte.is_ascii_digit()).count();
        (count > 0).then_some(start + count)
    }
}
