//! The page in a real browser, with ten thousand assets in its list. Without a browser the test says so and ends.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    missing_docs
)]

mod browser;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, StatusCode, header};
use axum::middleware::{self, Next};
use axum::response::{Html, IntoResponse, Response};
use axum::routing::get;
use futures::stream;
use ofa_crds::{GroupName, Shard, ShardMap, UnsLevel};
use ofa_serving::http;
use ofa_serving::metrics::Metrics;
use ofa_serving::router::groups::{Directory, GroupRegistry, Groups, Proxy};
use ofa_serving::router::{About, Access, Routing, app_with};
use parking_lot::{Mutex, RwLock};
use reqwest::Url;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use browser::Browser;

const ASSETS: usize = 10_000;
const PER_GROUP: usize = 100;

/// Events after which a stream ends, so that the page has to come back.
const STREAM_EVENTS: u32 = 30;

/// What the router asks for.
const TOKEN: &str = "a-valid-token";

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

/// The ids that streams were resumed by.
type Resumed = Arc<Mutex<Vec<String>>>;

/// A group's service whose machines turn faster and faster; its streams end again and again.
async fn service(resumed: Resumed) -> String {
    let events = get(async |State(resumed): State<Resumed>, headers: HeaderMap| {
        let id = headers.get("last-event-id").map(|id| id.to_str().unwrap());
        let first = id.map_or(0, |id| {
            id.rsplit('/').next().unwrap().parse::<u32>().unwrap() + 1
        });
        resumed.lock().extend(id.map(str::to_owned));
        let events = stream::unfold(first, move |count| async move {
            tokio::time::sleep(Duration::from_millis(50)).await;
            let speed = f64::from(count % 100).mul_add(10.0, 1000.0);
            let event = format!(
                "event: asset_update\nid: t/0/{count}\nretry: 300\ndata: {{\"ID\":\"speed\",\"VALUE\":{speed},\ndata: \"TAG\":\"Speed\",\"TYPE\":\"Samples\"}}\n\n: ping\n\n"
            );
            let goes_on = count < first + STREAM_EVENTS;
            goes_on.then(|| (Ok::<_, std::convert::Infallible>(event), count + 1))
        });
        let kind = [(header::CONTENT_TYPE, "text/event-stream")];
        (kind, Body::from_stream(events)).into_response()
    });
    serve(
        Router::new()
            .route("/asset_stream", events)
            .with_state(resumed),
    )
    .await
}

async fn groups(resumed: &Resumed) -> Groups {
    let mut directory = Directory::new(UnsLevel::every_value("workcenter"));
    for asset in 0..ASSETS {
        let group = format!("WC{:03}", asset / PER_GROUP + 1);
        let entry = [("workcenter", group.as_str())].into_iter().collect();
        let asset = format!("CNC-{asset:05}");
        directory.apply(&asset, Some(&entry)).unwrap();
    }
    directory.set_caught_up();
    Groups {
        directory: Arc::new(RwLock::new(directory)),
        registry: Arc::new(OneService(
            service(Arc::clone(resumed)).await.parse().unwrap(),
        )),
        proxy: Proxy::new(CancellationToken::new()).unwrap(),
        news: watch::channel(0).1,
        lags: None,
    }
}

/// The router, and what a browser can say to it only from a page of the same origin.
async fn router(resumed: &Resumed, asks_for_token: bool) -> String {
    let shard = Shard {
        name: "line-1".parse().unwrap(),
        urls: vec!["nats://a:4222".to_owned()],
        advertised_urls: vec![],
    };
    let map = Arc::new(ShardMap::from_ring(3, vec![shard], 8).unwrap());
    let (_, routing) = watch::channel(Routing::by(None, map));
    let metrics = Arc::new(Metrics::new("router"));
    let groups = Some(groups(resumed).await);
    let app = app_with(
        routing,
        metrics,
        groups,
        About::default(),
        &Access::default(),
    );
    let app = if asks_for_token {
        app.layer(middleware::from_fn(needs_token))
    } else {
        app
    };
    let page = Router::new().route("/event-source", get(async || Html(EVENT_SOURCE)));
    serve(app.merge(page)).await
}

/// As the router's own check does, which has its own tests.
async fn needs_token(request: Request, next: Next) -> Response {
    let data = ["/shards", "/groups", "/assets", "/asset_stream"];
    let token = request.headers().get(header::AUTHORIZATION);
    let valid = token.is_some_and(|token| token.to_str().unwrap() == format!("Bearer {TOKEN}"));
    if data.contains(&request.uri().path()) && !valid {
        let body = axum::Json(serde_json::json!({ "detail": "send a token" }));
        return (StatusCode::UNAUTHORIZED, body).into_response();
    }
    next.run(request).await
}

const EVENT_SOURCE: &str = "<p id=events></p><script>
    const source = new EventSource('/group/WC001/asset_stream?asset_uuid=CNC-00001');
    const values = [];
    source.addEventListener('asset_update', (event) => {
        values.push(JSON.parse(event.data).VALUE);
        document.getElementById('events').textContent = `${values.length} in order: ${values.every((it, at) => it === 1000 + (at % 100) * 10)}`;
    });
</script>";

/// How many of a page's elements there are.
fn count(selector: &str) -> String {
    format!("document.querySelectorAll('{selector}').length")
}

/// Whether a part of the page says so.
fn says(id: &str, text: &str) -> String {
    format!("document.getElementById('{id}')?.textContent.includes('{text}') === true")
}

fn picture(browser: &mut Browser, name: &str) {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"));
    browser.picture(&folder.join(format!("page-{name}.png")));
}

fn shows_all(browser: &mut Browser, url: &str) {
    // An address that names assets opens with their values.
    browser.open(&format!("{url}/#asset=CNC-00001&asset=CNC-00777"));
    browser.wait("assets", &says("found", "10000 found"));
    browser.wait("an asset", &says("rows", "CNC-00000"));
    browser.wait("the shard", &says("shards", "line-1"));
    browser.wait("the shard map", &says("epoch", "Shard map 3"));
    browser.wait("forwarders", &says("forwarder-lag", "an unknown number"));
    browser.wait("the last group", &says("groups", "WC100"));
    browser.wait("a sleeping group", &says("groups", "asleep"));
    browser.wait("two streams", &format!("{} === 2", count("#live article")));
    // Beyond one stream's length, so that both have come back.
    let counted = "[...document.querySelectorAll('article h3 span')].every((it) => parseInt(it.textContent) > 100)";
    browser.wait("live values", counted);
    let plots = "[...document.querySelectorAll('polyline')].every((it) => it.points.length > 50)";
    browser.wait("plots", plots);
    browser.wait("the indicator", &says("connection", "live"));
    picture(browser, "live");
}

fn scrolls_through_all(browser: &mut Browser) {
    let rows = count("#rows li");
    browser.wait("few rows", &format!("{rows} > 10 && {rows} < 100"));
    browser.evaluate("document.getElementById('assets').scrollTop = 26 * 7000");
    browser.wait("the middle", &says("rows", "CNC-07000"));
    browser.evaluate("document.getElementById('assets').scrollTop = 1e9");
    browser.wait("the end", &says("rows", "CNC-09999"));
    browser.wait("few rows", &format!("{rows} > 10 && {rows} < 100"));
    picture(browser, "scrolled");
}

fn searches(browser: &mut Browser, url: &str) {
    // And an asset whose group has no service.
    browser.open(&format!("{url}/#asset=CNC-00150&search=CNC-0999"));
    browser.wait("the search", &says("found", "10 found"));
    browser.wait(
        "the indicator",
        &says("connection", "reconnecting (0 of 1 live)"),
    );
    browser.wait("why", &says("live", "no service at the moment"));
    picture(browser, "search");
}

fn asks_for_a_token(browser: &mut Browser, url: &str) {
    browser.open(url);
    browser.wait("the question", &says("login", "This router asks for one."));
    picture(browser, "token");
    let enter = |token: &str| {
        format!(
            "document.getElementById('token').value = '{token}'; document.querySelector('#login button').click()"
        )
    };
    browser.evaluate(&enter("not-valid"));
    browser.wait("the refusal", &says("login", "not valid"));
    browser.wait("nothing", &format!("{} === 0", count("#rows li")));
    browser.evaluate(&enter(TOKEN));
    browser.wait("assets", &says("found", "10000 found"));
    browser.wait("no question", "document.getElementById('login').hidden");
    browser.evaluate("document.querySelector('#rows input').click()");
    browser.wait("live values", &says("live", "speed"));
}

#[test]
fn the_page_in_a_browser() {
    let Some(program) = browser::installed() else {
        eprintln!("SKIPPED: there is no browser here; e2e/tools/setup chromium installs one");
        return;
    };
    let _ = rustls::crypto::ring::default_provider().install_default();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let resumed = Resumed::default();
    let open = runtime.block_on(router(&resumed, false));
    let closed = runtime.block_on(router(&resumed, true));
    let mut browser = Browser::start(&program);

    shows_all(&mut browser, &open);
    assert!(!resumed.lock().is_empty(), "streams that ended went on");
    scrolls_through_all(&mut browser);
    searches(&mut browser, &open);
    asks_for_a_token(&mut browser, &closed);

    // What comes through the proxy is what a browser's own EventSource takes, over the ends of streams too.
    browser.open(&format!("{open}/event-source"));
    browser.wait("many events", "values.length > 100");
    browser.wait("in order", &says("events", "in order: true"));
}
