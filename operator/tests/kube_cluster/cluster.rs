//! The cluster that all tests share, a namespace for each of them, and the wait for something to come true.

use std::fs::File;
use std::future::Future;
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;
use std::time::{Duration, Instant};

use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::api::{Api, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams};
use kube::client::ClientBuilder;
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::core::ApiResource;
use kube::{Client, Config, ResourceExt as _};
use ofa_operator::platform::kubernetes::objects;
use serde_json::json;

use crate::meter::Meter;

/// Longer than anything takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(90);

struct Running {
    kubeconfig: String,
    config: Config,
    /// While it is held the cluster stays.
    _lock: File,
}

fn cache() -> PathBuf {
    let set = |name: &str| std::env::var_os(name).map(PathBuf::from);
    let home = || set("HOME").expect("HOME is set").join(".cache");
    set("OFA_CACHE").unwrap_or_else(|| {
        set("XDG_CACHE_HOME")
            .unwrap_or_else(home)
            .join("openfactory-fanout")
    })
}

fn start() -> Running {
    ofa_operator::tls::install_provider();
    let directory = cache().join("run/kubernetes");
    let program = program("kube-cluster");
    std::fs::create_dir_all(&directory).unwrap();
    // Taken first: the cluster must not end between its start and the first test.
    let lock = File::create(directory.join("users")).unwrap();
    rustix::fs::flock(&lock, rustix::fs::FlockOperation::LockShared).unwrap();
    let output = Command::new(&program)
        .arg("ensure")
        .arg(&directory)
        .output();
    let output = output.unwrap_or_else(|error| {
        panic!(
            "{}: {error}; run: e2e/tools/setup kubernetes",
            program.display()
        )
    });
    assert!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    let kubeconfig = String::from_utf8(output.stdout).unwrap().trim().to_owned();
    let file = Kubeconfig::read_from(&kubeconfig).unwrap();
    let config = std::thread::spawn(move || {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        runtime.block_on(async {
            let options = KubeConfigOptions::default();
            let config = Config::from_custom_kubeconfig(file, &options)
                .await
                .unwrap();
            install_crds(&Client::try_from(config.clone()).unwrap()).await;
            config
        })
    });
    Running {
        kubeconfig,
        config: config.join().unwrap(),
        _lock: lock,
    }
}

fn running() -> &'static Running {
    static RUNNING: OnceLock<Running> = OnceLock::new();
    RUNNING.get_or_init(start)
}

async fn install_crds(client: &Client) {
    let api: Api<CustomResourceDefinition> = Api::all(client.clone());
    for name in ["assetgroups", "forwarderpools", "natsshards"] {
        let path = format!("{}/../crds/{name}.yaml", env!("CARGO_MANIFEST_DIR"));
        let crd: CustomResourceDefinition =
            serde_saphyr::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
        let params = PatchParams::apply("test").force();
        api.patch(&crd.name_any(), &params, &Patch::Apply(&crd))
            .await
            .unwrap();
        let established = kube::runtime::conditions::is_crd_established();
        kube::runtime::wait::await_condition(api.clone(), &crd.name_any(), established)
            .await
            .unwrap();
    }
}

/// A program that `e2e/tools/setup` has installed.
pub(crate) fn program(name: &str) -> PathBuf {
    cache().join("bin").join(name)
}

/// Path of the shared cluster's kubeconfig.
pub(crate) fn kubeconfig() -> &'static str {
    &running().kubeconfig
}

/// A client of the shared cluster.
pub(crate) fn client() -> Client {
    Client::try_from(running().config.clone()).unwrap()
}

/// A client whose requests are counted, and which can be made to fail.
pub(crate) fn metered(meter: &Meter) -> Client {
    layered(running().config.clone(), meter)
}

/// The same with the rights of another user.
pub(crate) fn metered_as(user: &str, meter: &Meter) -> Client {
    let mut config = running().config.clone();
    config.auth_info.impersonate = Some(user.to_owned());
    layered(config, meter)
}

fn layered(config: Config, meter: &Meter) -> Client {
    ClientBuilder::try_from(config)
        .unwrap()
        .with_layer(meter)
        .build()
}

/// A new namespace that takes only pods which keep to the strictest standard.
pub(crate) async fn namespace(client: &Client) -> String {
    let api: Api<Namespace> = Api::all(client.clone());
    let namespace: Namespace = serde_json::from_value(json!({"metadata": {
        "generateName": "test-",
        "labels": {"pod-security.kubernetes.io/enforce": "restricted"},
    }}))
    .unwrap();
    let name = api
        .create(&PostParams::default(), &namespace)
        .await
        .unwrap()
        .name_any();
    // Pods need it, and it comes a moment later.
    let accounts: Api<k8s_openapi::api::core::v1::ServiceAccount> =
        Api::namespaced(client.clone(), &name);
    eventually("default service account", || async {
        accounts.get_opt("default").await.unwrap()
    })
    .await;
    name
}

/// Ends a test that has passed; what failed stays to be looked at.
pub(crate) async fn done(client: &Client, namespace: &str) {
    let api: Api<Namespace> = Api::all(client.clone());
    api.delete(namespace, &DeleteParams::default())
        .await
        .unwrap();
}

/// Asks until there is an answer.
pub(crate) async fn eventually<T, F: Future<Output = Option<T>>>(
    what: &str,
    mut ask: impl FnMut() -> F,
) -> T {
    let begin = Instant::now();
    loop {
        if let Some(answer) = ask().await {
            return answer;
        }
        assert!(begin.elapsed() < PATIENCE, "never: {what}");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

/// Everything that the operator may have made in a namespace.
pub(crate) async fn objects(client: &Client, namespace: &str) -> Vec<DynamicObject> {
    let mut all = Vec::new();
    for resource in objects::types() {
        let api: Api<DynamicObject> = Api::namespaced_with(client.clone(), namespace, &resource);
        let found = api.list(&ListParams::default()).await.unwrap();
        all.extend(found.into_iter().map(|mut object| {
            object.types = Some(kube::core::TypeMeta {
                api_version: resource.api_version.clone(),
                kind: resource.kind.clone(),
            });
            object
        }));
    }
    all.retain(|object| object.labels().contains_key("app.kubernetes.io/managed-by"));
    all
}

/// `Kind/name` of each.
pub(crate) fn names(objects: &[DynamicObject]) -> Vec<String> {
    let name = |object: &DynamicObject| {
        let kind = object
            .types
            .as_ref()
            .map_or("", |types| types.kind.as_str());
        format!("{kind}/{}", object.name_any())
    };
    let mut names: Vec<String> = objects.iter().map(name).collect();
    names.sort();
    names
}

/// An object of any type, if it is there.
pub(crate) fn api<K>(client: &Client, namespace: &str) -> Api<DynamicObject>
where
    K: kube::Resource<DynamicType = ()>,
{
    Api::namespaced_with(client.clone(), namespace, &ApiResource::erase::<K>(&()))
}
