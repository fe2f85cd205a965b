//! What clients of a shard are told of a new shard map, so that they need not ask for it again and again.
//!
//! Every forwarder tells: a client takes what it knows already for nothing, and one forwarder that is gone is not missed.

use ofa_crds::shard_map::MapNotice;
use ofa_crds::subject;
use tokio::sync::watch;

/// What one shard's clients are told of the newest shard map, if anything.
pub(crate) struct Notices {
    subject: String,
    newest: watch::Receiver<Option<MapNotice>>,
}

impl Notices {
    /// Of a pool's maps.
    pub(crate) fn new(pool: &str, newest: watch::Receiver<Option<MapNotice>>) -> Self {
        Self {
            subject: subject::map_notice(pool),
            newest,
        }
    }

    /// Has the newest one told again: what an earlier session published may be lost.
    pub(super) fn repeat(&mut self) {
        self.newest.mark_changed();
    }

    /// The frame of the next one. Cancelling loses nothing.
    pub(super) async fn next(&mut self) -> Vec<u8> {
        while self.newest.changed().await.is_ok() {
            if let Some(notice) = &*self.newest.borrow_and_update() {
                return frame(&self.subject, notice);
            }
        }
        // The forwarder is on its way out.
        std::future::pending().await
    }
}

fn frame(subject: &str, notice: &MapNotice) -> Vec<u8> {
    // Two fields of plain data always are JSON.
    let text = serde_json::to_string(notice).unwrap_or_default();
    format!("PUB {subject} {}\r\n{text}\r\n", text.len()).into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_map_is_told_once_in_each_session() {
        let newest = watch::Sender::default();
        let mut notices = Notices::new("the pool", newest.subscribe());
        let mut next = async |repeats: bool| {
            if repeats {
                notices.repeat();
            }
            let told = tokio::time::timeout(std::time::Duration::ZERO, notices.next());
            told.await.ok().map(|it| String::from_utf8(it).unwrap())
        };
        assert_eq!(next(true).await, None, "there is nothing to tell");
        let assignment = "00000000000000ab".parse().unwrap();
        newest.send_replace(Some(MapNotice {
            epoch: 7,
            assignment,
        }));
        let text = r#"{"epoch":7,"assignment":"00000000000000ab"}"#;
        let frame = format!("PUB _OFA.map.the%20pool {}\r\n{text}\r\n", text.len());
        assert_eq!(next(false).await.as_ref(), Some(&frame));
        assert_eq!(next(false).await, None);
        assert_eq!(next(true).await, Some(frame));
        newest.send_replace(None);
        assert_eq!(next(true).await, None, "all is as it was");
    }
}
