//! Reads each section of a configuration and checks what belongs together. Never touches the system.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use toml_edit::{Item, Table};

use super::model::{
    Admin, Config, DtlsVersion, Forwarder, Http, Limits, Log, LogFormat, Media, MediaAddress, MediaAddresses, Origins,
    Tls, Wire,
};
use super::network::{Cidr, PublicUrl};
use super::read::{Fields, Report, shown_value};

/// Most bytes any size may be.
const MOST_BYTES: i64 = 1 << 30;
/// Most of anything that is counted.
const MOST: i64 = 10_000_000;

pub(super) fn read(table: &Table, report: &mut Report<'_>) -> Config {
    let mut config = Config::default();
    let mut top = Fields::new(report, table, String::new());
    if let Some(fields) = top.inner("http") {
        http(fields, &mut config.http);
    }
    if let Some(fields) = top.inner("media") {
        media(fields, &mut config.media);
    }
    if let Some(fields) = top.inner("forwarder") {
        forwarder(fields, &mut config.forwarder);
    }
    if let Some(fields) = top.inner("admin") {
        admin(fields, &mut config.admin);
    }
    if let Some(fields) = top.inner("wire") {
        wire(fields, &mut config.wire);
    }
    if let Some(fields) = top.inner("limits") {
        limits(fields, &mut config.limits);
    }
    if let Some(fields) = top.inner("log") {
        log(fields, &mut config.log);
    }
    top.finish();
    config
}

fn address(text: &str) -> Option<SocketAddr> {
    text.parse().ok()
}

/// Reads a URL that may be empty for none.
fn url(fields: &mut Fields<'_, '_, '_>, key: &'static str, into: &mut Option<PublicUrl>) {
    fields.take(key, "an http or https URL without a query", into, |item| {
        let text = item.as_str()?;
        if text.is_empty() { Some(None) } else { text.parse().ok().map(Some) }
    });
}

fn http(mut fields: Fields<'_, '_, '_>, http: &mut Http) {
    fields.take("listen", "ADDRESS:PORT or a list of them, e.g. \"0.0.0.0:8443\"", &mut http.listen, |item| {
        if let Some(text) = item.as_str() {
            return Some(vec![address(text)?]);
        }
        let list: Option<Vec<SocketAddr>> = item.as_array()?.iter().map(|v| address(v.as_str()?)).collect();
        list.filter(|list| !list.is_empty())
    });
    tls(&mut fields, http);
    url(&mut fields, "public_url", &mut http.public_url);
    let mut proxies: Vec<Cidr> = Vec::new();
    fields.each("trusted_proxies", "a list of address ranges", |fields, value, at| {
        if let Some(range) = value.as_str().and_then(|text| text.parse().ok()) {
            return proxies.push(range);
        }
        let message = format!("is {}; expected an address range, e.g. \"10.0.0.0/8\"", shown_value(value));
        fields.wrong_at(at, "trusted_proxies", message);
    });
    http.trusted_proxies = proxies;
    let expected = "\"*\" or a list of origins, e.g. [\"https://app.example\"]";
    fields.take("allowed_origins", expected, &mut http.allowed_origins, |item| {
        if let Some(text) = item.as_str() {
            return (text == "*").then_some(Origins::Any);
        }
        let origin = |text: &str| {
            let url: PublicUrl = text.parse().ok()?;
            url.path.is_empty().then(|| url.origin())
        };
        let list: Option<Vec<String>> = item.as_array()?.iter().map(|v| origin(v.as_str()?)).collect();
        list.map(Origins::List)
    });
    fields.number("body_limit", 1024, MOST_BYTES, &mut http.body_limit);
    fields.number("header_limit", 8192, 1 << 20, &mut http.header_limit);
    fields.number("header_count", 16, 1000, &mut http.header_count);
    fields.number("max_connections", 1, MOST, &mut http.max_connections);
    fields.number("max_connections_per_address", 1, MOST, &mut http.max_connections_per_address);
    fields.seconds("tls_timeout", &mut http.tls_timeout);
    fields.seconds("header_timeout", &mut http.header_timeout);
    fields.seconds("body_timeout", &mut http.body_timeout);
    fields.seconds("write_timeout", &mut http.write_timeout);
    fields.seconds("answer_timeout", &mut http.answer_timeout);
    fields.number("queue", 1, MOST, &mut http.queue);
    fields.finish();
}

fn tls(fields: &mut Fields<'_, '_, '_>, http: &mut Http) {
    let mut kind = "self-signed".to_owned();
    fields.take("tls", "\"self-signed\", \"files\" or \"off\"", &mut kind, |item| {
        item.as_str().filter(|text| matches!(*text, "self-signed" | "files" | "off")).map(ToOwned::to_owned)
    });
    let (mut certificate, mut key) = (None, None);
    fields.path("certificate", &mut certificate);
    fields.path("key", &mut key);
    http.tls = match (kind.as_str(), certificate, key) {
        ("files", Some(certificate), Some(key)) => Tls::Files { certificate, key },
        ("files", certificate, key) => {
            for (name, given) in [("certificate", certificate.is_some()), ("key", key.is_some())] {
                if !given {
                    fields.wrong(name, "missing; tls = \"files\" needs a PEM file");
                }
            }
            Tls::SelfSigned
        }
        (kind, certificate, key) => {
            for (name, given) in [("certificate", certificate.is_some()), ("key", key.is_some())] {
                if given {
                    fields.wrong(name, format!("is not used with tls = {kind:?}; set tls = \"files\" or remove it"));
                }
            }
            if kind == "off" { Tls::Off } else { Tls::SelfSigned }
        }
    };
}

fn media(mut fields: Fields<'_, '_, '_>, media: &mut Media) {
    let auto = fields.item("addresses").and_then(Item::as_str).map(ToOwned::to_owned);
    match auto.as_deref() {
        Some("auto") => {}
        Some(other) => {
            let message = format!("is {other:?}; expected \"auto\" or a list of {{ interface, address, advertised }}");
            fields.wrong("addresses", message);
        }
        None if fields.item("addresses").is_some() => addresses(&mut fields, media),
        None => {}
    }
    fields.number("port", 1, 65_535, &mut media.port);
    fields.take("dtls", "\"1.2\", \"1.3\" or \"auto\"", &mut media.dtls, |item| match item.as_str()? {
        "1.2" => Some(DtlsVersion::V12),
        "1.3" => Some(DtlsVersion::V13),
        "auto" => Some(DtlsVersion::Auto),
        _ => None,
    });
    fields.finish();
}

fn addresses(fields: &mut Fields<'_, '_, '_>, media: &mut Media) {
    let mut list: Vec<MediaAddress> = Vec::new();
    let mut seen = 0;
    fields.each("addresses", "\"auto\" or a list of { interface, address, advertised }", |fields, value, at| {
        seen += 1;
        let Some(table) = value.as_inline_table() else {
            let message = format!("is {}; expected {{ interface, address, advertised }}", shown_value(value));
            return fields.wrong_at(at, "addresses", message);
        };
        let mut row = fields.element("addresses", table);
        let (mut interface, mut local, mut advertised) = (String::new(), None, None);
        row.take("interface", "an interface's name", &mut interface, |item| {
            item.as_str().filter(|name| (1..16).contains(&name.len())).map(ToOwned::to_owned)
        });
        let ip = |item: &Item| item.as_str()?.parse::<IpAddr>().ok().filter(|ip| !ip.is_unspecified()).map(Some);
        row.take("address", "an IP address of the interface", &mut local, ip);
        row.take("advertised", "an IP address", &mut advertised, ip);
        for (key, given) in [("interface", table.contains_key("interface")), ("address", table.contains_key("address"))]
        {
            if !given {
                row.wrong(key, "missing");
            }
        }
        row.finish();
        let Some(address) = local else { return };
        if advertised.is_some_and(|a: IpAddr| a.is_ipv4() != address.is_ipv4()) {
            return fields.wrong_at(at, "addresses.advertised", "is of another family than address");
        }
        if list.iter().any(|other| other.address == address) {
            return fields.wrong_at(at, "addresses.address", format!("{address} is listed twice"));
        }
        list.push(MediaAddress { interface, address, advertised });
    });
    if seen == 0 {
        fields.wrong("addresses", "is an empty list; expected \"auto\" or at least one address");
    }
    media.addresses = MediaAddresses::List(list);
}

fn socket(item: &Item) -> Option<PathBuf> {
    // A Unix socket's path fits in 107 bytes.
    item.as_str().filter(|text| (1..=107).contains(&text.len())).map(PathBuf::from)
}

fn forwarder(mut fields: Fields<'_, '_, '_>, forwarder: &mut Forwarder) {
    fields.take("socket", "a path of at most 107 bytes", &mut forwarder.socket, socket);
    fields.seconds("timeout", &mut forwarder.timeout);
    fields.finish();
}

fn admin(mut fields: Fields<'_, '_, '_>, admin: &mut Admin) {
    fields.take("listen", "ADDRESS:PORT or \"off\"", &mut admin.listen, |item| match item.as_str()? {
        "off" => Some(None),
        text => address(text).map(Some),
    });
    fields.take("socket", "a path of at most 107 bytes", &mut admin.socket, socket);
    fields.finish();
}

fn wire(mut fields: Fields<'_, '_, '_>, wire: &mut Wire) {
    fields.path("token_secret_file", &mut wire.token_secret_file);
    fields.flag("require_tokens", &mut wire.require_tokens);
    if wire.require_tokens && wire.token_secret_file.is_none() {
        fields.wrong("require_tokens", "is true, but there is no token_secret_file to check tokens with");
    }
    let expected = "releases, e.g. \"<6.2.9,6.2.11\"";
    fields.take("blacklist", expected, &mut wire.blacklist, |item| item.as_str()?.parse().ok());
    let mut servers: Vec<PublicUrl> = Vec::new();
    fields.each("servers", "a list of URLs", |fields, value, at| match value.as_str().and_then(|t| t.parse().ok()) {
        Some(url) => servers.push(url),
        None => fields.wrong_at(at, "servers", format!("is {}; expected an http or https URL", shown_value(value))),
    });
    wire.servers = servers;
    url(&mut fields, "redirect", &mut wire.redirect);
    fields.finish();
}

fn limits(mut fields: Fields<'_, '_, '_>, limits: &mut Limits) {
    fields.number("conferences", 1, MOST, &mut limits.conferences);
    fields.number("participants", 1, MOST, &mut limits.participants);
    fields.number("participants_per_conference", 1, 65_535, &mut limits.participants_per_conference);
    fields.number("allocations", 1, MOST, &mut limits.allocations);
    fields.number("allocations_per_source", 1, MOST, &mut limits.allocations_per_source);
    fields.seconds("allocation_timeout", &mut limits.allocation_timeout);
    fields.seconds("liveness_timeout", &mut limits.liveness_timeout);
    fields.seconds("orphan_timeout", &mut limits.orphan_timeout);
    fields.number("sdp_bytes", 4096, MOST_BYTES, &mut limits.sdp_bytes);
    fields.number("candidates", 1, 1000, &mut limits.candidates);
    fields.number("message_bytes", 1024, MOST_BYTES, &mut limits.message_bytes);
    fields.number("messages_per_second", 1, 100_000, &mut limits.messages_per_second);
    fields.number("message_burst", 1, 100_000, &mut limits.message_burst);
    fields.number("history", 0, 1024, &mut limits.history);
    fields.number("channel_queue_bytes", 65_536, MOST_BYTES, &mut limits.channel_queue_bytes);
    fields.number("video_streams", 0, 32, &mut limits.video_streams);
    fields.finish();
}

fn log(mut fields: Fields<'_, '_, '_>, log: &mut Log) {
    fields.take("level", "a level or directives, e.g. \"info\"", &mut log.level, |item| {
        let text = item.as_str()?;
        text.parse::<tracing_subscriber::filter::Targets>().ok().map(|_| text.to_owned())
    });
    fields.take("format", "\"text\" or \"json\"", &mut log.format, |item| match item.as_str()? {
        "text" => Some(LogFormat::Text),
        "json" => Some(LogFormat::Json),
        _ => None,
    });
    fields.finish();
}
