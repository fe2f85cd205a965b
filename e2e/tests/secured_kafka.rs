//! A broker that wants TLS and to know who reads: forwarders speak to it by librdkafka as members of their group, and by
//! themselves for the records.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use ofa_e2e::kafka::Broker;
use ofa_e2e::load::Pace;
use ofa_e2e::scene::{Scene, scenario_with_own_broker};
use ofa_e2e::tools;
use ofa_e2e::watch::Recorder;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa,
    KeyPair,
};
use tokio::time::sleep;

const USER: &str = "line-1";
const PASSWORD: &str = "correct horse=battery";

/// Long enough for each forwarder to take part: it joins, reads, commits and leaves.
const EACH: Duration = Duration::from_secs(3);

/// Each forwarder comes in by another way and goes on where the one before has stopped.
#[tokio::test(flavor = "multi_thread")]
async fn forwarders_read_by_tls_and_by_every_mechanism_of_sasl() {
    scenario_with_own_broker("secured-kafka", async |scene, mut broker| {
        let folder = scene.folder();
        broker.kill()?;
        let (by_sasl, by_certificate) = (broker.listen("SASL_SSL")?, broker.listen("SSL")?);
        certificates(folder, by_sasl.ip())?;
        secure(&mut broker, folder);
        broker.run().await?;
        for mechanism in ["SCRAM-SHA-256", "SCRAM-SHA-512"] {
            add_user(&broker, mechanism)?;
        }

        let shards = scene.shards(1, 2).await?;
        let recorder = Recorder::start(&shards[0].nodes()[0]).await?;
        let load = scene.load(Pace::default())?;
        let mechanisms = ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"];
        let ways = mechanisms.map(|mechanism| (by_sasl, sasl(mechanism, folder)));
        let ways = ways
            .into_iter()
            .chain([(by_certificate, client_certificate(folder))]);
        for (number, (address, mut variables)) in ways.enumerate() {
            variables.push(("KAFKA_SSL_CA_FILE".to_owned(), file(folder, "ca.crt")));
            let mut settings = scene.settings(&format!("f{number}"), &shards);
            settings.broker = address.to_string();
            settings.variables = variables;
            let mut forwarder = scene.start(settings)?;
            forwarder.wait_ready().await?;
            let before = committed(scene)?;
            sleep(EACH).await;
            forwarder.stop().await?;
            ensure!(committed(scene)? > before, "nothing came by way {number}");
        }
        let _last = scene.forwarder("last", &shards).await?;
        let expected = scene.settle(load).await?;
        let verdict = scene.verdict(&expected, &[&recorder]).await;
        verdict.must_be_perfect()
    })
    .await;
}

fn committed(scene: &Scene) -> Result<u64> {
    Ok(scene.committed()?.values().sum())
}

fn sasl(mechanism: &str, folder: &Path) -> Vec<(String, String)> {
    [
        ("KAFKA_SECURITY_PROTOCOL", "SASL_SSL".to_owned()),
        ("KAFKA_SASL_MECHANISM", mechanism.to_owned()),
        ("KAFKA_SASL_USERNAME", USER.to_owned()),
        ("KAFKA_SASL_PASSWORD_FILE", file(folder, "password")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn client_certificate(folder: &Path) -> Vec<(String, String)> {
    [
        ("KAFKA_SECURITY_PROTOCOL", "SSL".to_owned()),
        ("KAFKA_SSL_CERT_FILE", file(folder, "client.crt")),
        ("KAFKA_SSL_KEY_FILE", file(folder, "client.key")),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into()
}

fn file(folder: &Path, name: &str) -> String {
    folder.join(name).to_string_lossy().into_owned()
}

/// An authority, a certificate of the broker's address, and one of a client.
fn certificates(folder: &Path, address: IpAddr) -> Result<()> {
    let mut params = CertificateParams::default();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params
        .distinguished_name
        .push(DnType::CommonName, "an authority");
    let authority = CertifiedIssuer::self_signed(params, KeyPair::generate()?)?;
    std::fs::write(folder.join("ca.crt"), authority.pem())?;
    for (name, usage) in [
        ("broker", ExtendedKeyUsagePurpose::ServerAuth),
        ("client", ExtendedKeyUsagePurpose::ClientAuth),
    ] {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec![address.to_string()])?;
        params.distinguished_name.push(DnType::CommonName, name);
        params.extended_key_usages = vec![usage];
        let certificate = params.signed_by(&key, &authority)?.pem();
        std::fs::write(folder.join(format!("{name}.crt")), &certificate)?;
        std::fs::write(folder.join(format!("{name}.key")), key.serialize_pem())?;
        // As Kafka takes the two.
        let both = key.serialize_pem() + &certificate;
        std::fs::write(folder.join(format!("{name}.pem")), both)?;
    }
    std::fs::write(folder.join("password"), PASSWORD)?;
    Ok(())
}

/// Who comes by TLS alone needs a certificate; who comes by SASL, a password.
fn secure(broker: &mut Broker, folder: &Path) {
    let plain = "org.apache.kafka.common.security.plain.PlainLoginModule required";
    let scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;";
    let settings = [
        ("SSL_KEYSTORE_TYPE", "PEM".to_owned()),
        ("SSL_KEYSTORE_LOCATION", file(folder, "broker.pem")),
        ("SSL_TRUSTSTORE_TYPE", "PEM".to_owned()),
        ("SSL_TRUSTSTORE_LOCATION", file(folder, "ca.crt")),
        ("LISTENER_NAME_SSL_SSL_CLIENT_AUTH", "required".to_owned()),
        (
            "SASL_ENABLED_MECHANISMS",
            "PLAIN,SCRAM-SHA-256,SCRAM-SHA-512".to_owned(),
        ),
        (
            "LISTENER_NAME_SASL__SSL_PLAIN_SASL_JAAS_CONFIG",
            format!("{plain} user_{USER}=\"{PASSWORD}\";"),
        ),
        (
            "LISTENER_NAME_SASL__SSL_SCRAM___SHA___256_SASL_JAAS_CONFIG",
            scram.to_owned(),
        ),
        (
            "LISTENER_NAME_SASL__SSL_SCRAM___SHA___512_SASL_JAAS_CONFIG",
            scram.to_owned(),
        ),
    ];
    for (name, value) in settings {
        broker.set(&format!("KAFKA_{name}"), value);
    }
}

/// Kafka takes one mechanism of a user at a time.
fn add_user(broker: &Broker, mechanism: &str) -> Result<()> {
    let output = tools::server("kafka-cli")?
        .args(["kafka.admin.ConfigCommand", "--bootstrap-server"])
        .arg(broker.address())
        .args(["--alter", "--entity-type", "users", "--entity-name", USER])
        .args([
            "--add-config",
            &format!("{mechanism}=[password={PASSWORD}]"),
        ])
        .output()
        .context("kafka-cli")?;
    let told = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "the user is not made: {told}");
    Ok(())
}
