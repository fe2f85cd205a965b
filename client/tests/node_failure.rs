//! A subscriber's node dies or stops: the subscription goes on at another one, and what was missed is named.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use common::{
    ASSET, NodePlan, Publisher, account, offset, receive_rest, router, routing, shard, until,
};
use ofa_client::{Client, Item, Subscription};

/// The subscriber is on the first node, since the second starts later; the publisher is on the second.
struct Scene {
    first: common::Node,
    _second: common::Node,
    _client: Client,
    subscription: Subscription,
    publisher: Publisher,
    items: Vec<Item>,
}

async fn set_up(knows_prev: bool) -> Scene {
    let (a, b) = (NodePlan::new("node-a"), NodePlan::new("node-b"));
    let first = a.start("C1", &[&b]).await;
    let router = router(routing(1, vec![shard("C1", &[&a, &b])])).await;
    // The second node cannot be connected to yet, so the subscription is on the first.
    let client = common::client(&router);
    let subscription = client.subscribe(&ASSET.parse().unwrap()).await.unwrap();
    common::wait_for_subscriptions(&first, 1).await;
    let second = b.start("C1", &[&a]).await;
    let publisher = Publisher::start(&[b.url()], knows_prev).await;
    Scene {
        first,
        _second: second,
        _client: client,
        subscription,
        publisher,
        items: Vec::new(),
    }
}

impl Scene {
    async fn receive_until(&mut self, wanted: impl Fn(&Item) -> bool) {
        let items = until(&mut self.subscription, wanted).await;
        self.items.extend(items);
    }

    async fn receive_events(&mut self, count: usize) {
        for _ in 0..count {
            self.receive_until(|item| offset(item).is_some()).await;
        }
    }
}

fn is_reconnected_to_b(item: &Item) -> bool {
    matches!(item, Item::Reconnected { node, .. } if node == "node-b")
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_node_costs_a_named_gap_and_nothing_else() {
    let mut scene = set_up(true).await;
    scene.receive_events(20).await;
    scene.first.signal("-KILL");
    scene.receive_until(is_reconnected_to_b).await;
    scene.receive_events(20).await;
    let last = scene.publisher.stop().await;
    receive_rest(&mut scene.subscription, &mut scene.items, last).await;
    account(&scene.items, last);
    let losses = scene
        .items
        .iter()
        .filter(|item| matches!(item, Item::Disconnected { .. }));
    assert_eq!(losses.count(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_forwarder_that_does_not_know_the_event_before_makes_the_gap_a_possible_one() {
    let mut scene = set_up(false).await;
    scene.receive_events(20).await;
    scene.first.signal("-KILL");
    scene.receive_until(is_reconnected_to_b).await;
    scene.receive_events(20).await;
    let last = scene.publisher.stop().await;
    receive_rest(&mut scene.subscription, &mut scene.items, last).await;
    account(&scene.items, last);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_stopped_node_is_left_for_another_one() {
    let mut scene = set_up(true).await;
    scene.receive_events(20).await;
    scene.first.signal("-STOP");
    scene.receive_until(is_reconnected_to_b).await;
    scene.receive_events(20).await;
    let last = scene.publisher.stop().await;
    receive_rest(&mut scene.subscription, &mut scene.items, last).await;
    let missing = account(&scene.items, last);
    assert!(missing > 0, "a silent node is noticed after seconds only");
}
