//! The page in a real browser, with ten thousand assets in its list. Without a browser the test says so and ends.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::Router;
use axum::body::Body;
use axum::http::header;
use axum::response::IntoResponse;
use axum::routing::get;
use futures::stream;
use ofa_crds::{GroupName, Shard, ShardMap, UnsLevel};
use ofa_serving::http;
use ofa_serving::metrics::Metrics;
use ofa_serving::router::groups::{Directory, GroupRegistry, Groups, Proxy};
use ofa_serving::router::{Access, Routing, app_with};
use parking_lot::RwLock;
use reqwest::Url;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

const ASSETS: usize = 10_000;
const PER_GROUP: usize = 100;

/// A browser's start on a busy machine takes its time.
const LIMIT: Duration = Duration::from_secs(120);

/// Real milliseconds after which the browser tells what it shows: several repaintings and one refresh of the tables.
const SHOWN_AFTER_MS: u32 = 12_000;

fn browser() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let names = ["chromium", "chromium-browser", "google-chrome"];
    let mut found = std::env::split_paths(&path)
        .flat_map(|folder| names.map(|name| folder.join(name)))
        .filter(|program| program.is_file());
    found.next()
}

struct OneService(Url);

impl GroupRegistry for OneService {
    fn service(&self, group: &GroupName) -> Option<Url> {
        (group.as_str() != "WC002").then(|| self.0.clone())
    }

    fn groups(&self) -> Vec<GroupName> {
        Vec::new()
    }
}

async fn serve(app: Router) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    tokio::spawn(http::serve(listener, app, std::future::pending()));
    url
}

/// A group's service whose one machine turns faster and faster.
async fn service() -> String {
    let events = get(async || {
        let events = stream::unfold(0_u32, |count| async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let speed = f64::from(count % 100).mul_add(10.0, 1000.0);
            let event = format!(
                "event: asset_update\nid: t/0/{count}\ndata: {{\"ID\":\"speed\",\"VALUE\":{speed},\"TAG\":\"Speed\",\"TYPE\":\"Samples\"}}\n\n"
            );
            Some((Ok::<_, std::convert::Infallible>(event), count + 1))
        });
        let kind = [(header::CONTENT_TYPE, "text/event-stream")];
        (kind, Body::from_stream(events)).into_response()
    });
    serve(Router::new().route("/asset_stream", events)).await
}

async fn router() -> String {
    let mut directory = Directory::new(UnsLevel::every_value("workcenter"));
    for asset in 0..ASSETS {
        let group = format!("WC{:03}", asset / PER_GROUP + 1);
        let entry = [("workcenter", group.as_str())].into_iter().collect();
        let asset = format!("CNC-{asset:05}");
        directory.apply(&asset, Some(&entry)).unwrap();
    }
    directory.set_caught_up();
    let groups = Groups {
        directory: Arc::new(RwLock::new(directory)),
        registry: Arc::new(OneService(service().await.parse().unwrap())),
        proxy: Proxy::new(CancellationToken::new()).unwrap(),
    };
    let shard = Shard {
        name: "line-1".parse().unwrap(),
        urls: vec!["nats://a:4222".to_owned()],
        advertised_urls: vec![],
    };
    let map = Arc::new(ShardMap::from_ring(3, vec![shard], 8).unwrap());
    let (_, routing) = watch::channel(Routing::Known { pool: None, map });
    serve(app_with(
        routing,
        Arc::new(Metrics::new("router")),
        Some(groups),
        None,
        &Access::default(),
    ))
    .await
}

/// What the page has become in the browser; also as a picture beside the test's other files.
async fn shown(browser: &Path, url: String) -> String {
    let picture = Path::new(env!("CARGO_TARGET_TMPDIR")).join("page.png");
    let browser = browser.to_owned();
    let run = move || {
        let profile = tempfile::tempdir().unwrap();
        let run = |what: &str| {
            let mut command = Command::new(&browser);
            command
                .args(["--headless=new", "--no-sandbox", "--disable-gpu"])
                .args(["--disable-dev-shm-usage", "--window-size=1400,1000"])
                .arg(format!("--user-data-dir={}", profile.path().display()))
                // A stream never ends loading: what is there after this time counts.
                .arg(format!("--timeout={SHOWN_AFTER_MS}"))
                .arg(what)
                .arg(&url)
                .stderr(Stdio::null());
            let child = command.stdout(Stdio::piped()).spawn().unwrap();
            output_within(child, LIMIT)
        };
        run(&format!("--screenshot={}", picture.display()));
        run("--dump-dom")
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

fn output_within(mut child: std::process::Child, limit: Duration) -> String {
    let mut stdout = child.stdout.take().unwrap();
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut stdout, &mut text).map(|_| text)
    });
    let begun = Instant::now();
    while child.try_wait().unwrap().is_none() {
        if begun.elapsed() > limit {
            child.kill().unwrap();
            panic!("the browser does not end");
        }
        std::thread::sleep(Duration::from_millis(100));
    }
    reader.join().unwrap().unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_page_shows_assets_groups_and_live_values() {
    let Some(browser) = browser() else {
        eprintln!("SKIPPED: there is no browser here; e2e/tools/setup chromium installs one");
        return;
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let router = router().await;
    // An address that names assets opens with their values.
    let dom = shown(
        &browser,
        format!("{router}/#asset=CNC-00001&asset=CNC-00777"),
    )
    .await;
    for (what, wanted) in [
        ("assets", "200 of 10000 shown"),
        ("an asset", "CNC-00000"),
        ("the shard", "line-1"),
        ("the shard map", "Shard map 3"),
        ("the last group", "WC100"),
        ("a sleeping group", "asleep"),
        ("live values", "speed"),
        ("the state of the connection", ">live<"),
    ] {
        assert!(dom.contains(wanted), "{what}: no '{wanted}' in {dom}");
    }
    // Painted: the plot has points, and both assets have counted their events.
    assert!(dom.matches(" events</span>").count() == 2, "{dom}");
    let plot = dom.split("points=\"").nth(1).expect("a plot");
    assert!(plot.split('"').next().unwrap().contains(' '), "{plot}");
}
