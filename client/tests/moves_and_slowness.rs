//! An asset moves to another shard; a consumer is too slow.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

mod common;

use std::time::Duration;

use common::{
    ASSET, NodePlan, Publisher, account, offset, publish, receive_rest, router, routing, shard,
    until,
};
use ofa_client::{Cause, Client, ClientOptions, Gap, Item, SubscribeOptions};

#[tokio::test(flavor = "multi_thread")]
async fn a_moved_asset_is_followed_without_loss_and_in_order() {
    let (a, b) = (NodePlan::new("a"), NodePlan::new("b"));
    let _nodes = (a.start("C1", &[]).await, b.start("C2", &[]).await);
    let router = router(routing(1, vec![shard("C1", &[&a])])).await;
    // It does not move because it asks in time, but because it is told.
    let options = ClientOptions {
        map_interval: Duration::from_secs(3600),
        ..ClientOptions::default()
    };
    let client = Client::with_options(&router.url, options).unwrap();
    let options = SubscribeOptions {
        stale: true,
        ..SubscribeOptions::default()
    };
    let asset = ASSET.parse().unwrap();
    let mut subscription = client.subscribe_with(&asset, options).await.unwrap();
    // While an asset moves, forwarders publish to both shards.
    let publisher = Publisher::start(&[a.url(), b.url()], true).await;
    let mut items = until(&mut subscription, |item| offset(item) >= Some(60)).await;

    let announced = routing(2, vec![shard("C2", &[&b])]);
    router.routing.send(announced.clone()).unwrap();
    common::tell(&a.url(), &announced).await;
    items.extend(until(&mut subscription, |item| matches!(item, Item::Moved { .. })).await);
    let moved = Item::Moved {
        from: "C1".into(),
        to: "C2".into(),
        epoch: Some(2),
    };
    assert_eq!(items.last(), Some(&moved));

    let at_move = items.iter().filter_map(offset).max().unwrap();
    items.extend(
        until(&mut subscription, |item| {
            offset(item) > Some(at_move + 3000)
        })
        .await,
    );
    let last = publisher.stop().await;
    receive_rest(&mut subscription, &mut items, last).await;
    assert_eq!(account(&items, last), 0);
    // What came twice: a second of an event every 4 ms, and not all that the former shard had in three.
    let twice = items.iter().filter(|it| matches!(it, Item::Stale(_)));
    let twice = twice.count();
    assert!((1..500).contains(&twice), "{twice} events came twice");
}

/// Without a replay service: with one it gets everything.
#[tokio::test(flavor = "multi_thread")]
async fn a_consumer_that_is_too_slow_gets_what_waits_and_is_told_what_it_missed() {
    /// More than may wait for a consumer.
    const EVENTS: u64 = 17_000;
    let a = NodePlan::new("a");
    let node = a.start("C1", &[]).await;
    let router = router(routing(1, vec![shard("C1", &[&a])])).await;
    let client = common::client(&router);
    let options = SubscribeOptions {
        queue: 10,
        ..SubscribeOptions::default()
    };
    let mut subscription = client
        .subscribe_with(&ASSET.parse().unwrap(), options)
        .await
        .unwrap();
    common::wait_for_subscriptions(&node, 1).await;
    let connection = async_nats::connect(a.url()).await.unwrap();
    for index in 0..EVENTS {
        publish(&connection, index, true).await;
    }
    connection.flush().await.unwrap();
    common::wait_for_delivery(&node, EVENTS).await;
    // The last of them is on its way from the node to this process.
    tokio::time::sleep(Duration::from_secs(1)).await;

    let mut items = until(&mut subscription, |item| matches!(item, Item::Gap(_))).await;
    let Some(Item::Gap(gap)) = items.pop() else {
        panic!("a gap was waited for");
    };
    assert_eq!(gap, Gap::unknown(Cause::SlowConsumer));
    let received = items.len() as u64;
    assert!((16_000..EVENTS).contains(&received), "{received}");
    // The next event shows exactly what is missing.
    publish(&connection, EVENTS, true).await;
    receive_rest(&mut subscription, &mut items, EVENTS * 3).await;
    assert_eq!(account(&items, EVENTS * 3), EVENTS - received);
}

#[tokio::test(flavor = "multi_thread")]
async fn all_assets_of_a_shard_can_be_watched_and_repeats_counted() {
    let a = NodePlan::new("a");
    let node = a.start("C1", &[]).await;
    let router = router(routing(1, vec![shard("C1", &[&a])])).await;
    let client = common::client(&router);
    let unknown = client
        .subscribe_all("C9", SubscribeOptions::default())
        .await;
    assert!(unknown.unwrap_err().to_string().contains("there are: C1"));
    let options = SubscribeOptions {
        stale: true,
        ..SubscribeOptions::default()
    };
    let mut subscription = client.subscribe_all("C1", options).await.unwrap();
    common::wait_for_subscriptions(&node, 1).await;
    let connection = async_nats::connect(a.url()).await.unwrap();
    for index in [0, 1, 1, 2] {
        publish(&connection, index, true).await;
    }
    connection
        .publish("_OFA.witness.f1", "".into())
        .await
        .unwrap();
    let items = until(&mut subscription, |item| offset(item) == Some(6)).await;
    let kinds: Vec<bool> = items
        .iter()
        .map(|item| matches!(item, Item::Stale(_)))
        .collect();
    assert_eq!(kinds, [false, false, true, false]);
}
