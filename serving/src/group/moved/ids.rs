//! The ids of a client that has been in several groups.

use bytes::Bytes;

use super::super::trail::SEPARATOR;

/// Events with something behind the first part of each id, and the last id's first part.
pub(super) fn with_longer_ids(chunk: &[u8], behind: &str) -> (Bytes, Option<String>) {
    let mut out = Vec::with_capacity(chunk.len() + behind.len());
    let mut last = None;
    for line in chunk.split_inclusive(|byte| *byte == b'\n') {
        match line.strip_prefix(b"id: ") {
            Some(id) => {
                let id = String::from_utf8_lossy(id.trim_ascii_end()).into_owned();
                let own = id.split(SEPARATOR).next().unwrap_or_default();
                let further = &id[own.len()..];
                out.extend_from_slice(format!("id: {own}{behind}{further}\n").as_bytes());
                last = Some(own.to_owned());
            }
            None => out.extend_from_slice(line),
        }
    }
    (out.into(), last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_tell_of_the_old_topics_too() {
        let chunk =
            b"event: asset_update\ndata: id: x\nid: t/0/7\n\n: ping\nid: t/0/9\n\nid: t/0/9|?u\n\n";
        let (bytes, last) = with_longer_ids(chunk, "|old/0/4");
        let expected = b"event: asset_update\ndata: id: x\nid: t/0/7|old/0/4\n\n: ping\nid: t/0/9|old/0/4\n\nid: t/0/9|old/0/4|?u\n\n";
        assert_eq!(&bytes[..], expected);
        assert_eq!(last.as_deref(), Some("t/0/9"));
    }
}
