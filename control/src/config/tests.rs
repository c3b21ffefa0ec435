//! Every default, every kind of mistake.

use std::time::Duration;

use super::*;

#[track_caller]
fn errors(text: &str) -> Vec<(usize, String, String)> {
    let errors = Config::parse(text).expect_err("the configuration was taken");
    errors.0.into_iter().map(|e| (e.line, e.key, e.message)).collect()
}

#[test]
fn the_default_file_is_the_default() {
    assert_eq!(Config::parse(&Config::default_toml()).unwrap(), Config::default());
    assert_eq!(Config::parse("").unwrap(), Config::default());
}

/// A wrong key in each section names all keys that are right: each of them must be in the default file.
#[test]
fn the_default_file_has_every_key() {
    let text = Config::default_toml();
    let document = text.parse::<toml_edit::DocumentMut>().unwrap();
    for section in ["http", "media", "forwarder", "admin", "wire", "limits", "log"] {
        let found = errors(&format!("[{section}]\nabsolutely_nothing_of_the_kind = 1\n"));
        let known = found[0].2.strip_prefix("unknown key; expected one of ").unwrap();
        let mut known: Vec<&str> = known.split(", ").collect();
        known.sort_unstable();
        known.dedup();
        let mut written: Vec<&str> = document[section].as_table().unwrap().iter().map(|(key, _)| key).collect();
        written.sort_unstable();
        assert_eq!(known, written, "[{section}]");
    }
}

#[test]
fn every_mistake_is_reported_with_its_line() {
    let text = "[http]\nlisten = \"nowhere\"\nbody_limti = 5\nheader_timeout = 0\n[meda]\n[media]\nport = 70000\n\
                dtls = \"1.1\"\naddresses = [{ interface = \"eth0\", adress = \"192.0.2.1\" }]\n[log]\nlevel = 3\n";
    let found = errors(text);
    let lines: Vec<(usize, &str)> = found.iter().map(|(line, key, _)| (*line, key.as_str())).collect();
    assert_eq!(
        lines,
        [
            (2, "http.listen"),
            (3, "http.body_limti"),
            (4, "http.header_timeout"),
            (5, "meda"),
            (7, "media.port"),
            (8, "media.dtls"),
            (9, "media.addresses.address"),
            (9, "media.addresses.adress"),
            (11, "log.level"),
        ]
    );
    assert!(found[1].2.contains("did you mean \"body_limit\"?"), "{}", found[1].2);
    assert!(found[3].2.contains("did you mean \"media\"?"), "{}", found[3].2);
    assert!(found[4].2.contains("is 70000; expected a whole number from 1 to 65535"), "{}", found[4].2);
    assert!(found[7].2.contains("did you mean \"address\"?"), "{}", found[7].2);
}

#[test]
fn what_is_not_toml_is_one_error() {
    let found = errors("[http\nlisten = 1\n");
    assert_eq!((found.len(), found[0].0), (1, 1));
    assert!(found[0].2.starts_with("not TOML"), "{}", found[0].2);
}

#[test]
fn keys_that_belong_together() {
    let found = errors("[http]\ntls = \"files\"\nkey = \"k.pem\"\n[wire]\nrequire_tokens = true\n");
    let keys: Vec<&str> = found.iter().map(|f| f.1.as_str()).collect();
    assert_eq!(keys, ["http.certificate", "wire.require_tokens"]);
    assert!(errors("[http]\nkey = \"k.pem\"\n")[0].2.contains("is not used with tls = \"self-signed\""));
    let good = Config::parse("[http]\ntls = \"files\"\ncertificate = \"c\"\nkey = \"k\"\n").unwrap();
    assert_eq!(good.http.tls, Tls::Files { certificate: "c".into(), key: "k".into() });
}

#[test]
fn values_are_read() {
    let text = r#"
        [http]
        listen = ["127.0.0.1:80", "[::1]:80"]
        tls = "off"
        public_url = "https://SFT.example:444/sfts/1/"
        trusted_proxies = ["10.0.0.0/8", "::1"]
        allowed_origins = ["https://app.example"]
        answer_timeout = 1.5
        [media]
        addresses = [{ interface = "eth0", address = "10.0.0.1", advertised = "192.0.2.1" }]
        dtls = "auto"
        [admin]
        listen = "off"
        [wire]
        blacklist = "<6.2.9,6.2.11"
        servers = ["https://a.example"]
        redirect = "https://b.example/sfts/2/"
    "#;
    let config = Config::parse(text).unwrap();
    assert_eq!(config.http.listen.len(), 2);
    let url = config.http.public_url.unwrap();
    assert_eq!((url.path.as_str(), url.to_string().as_str()), ("/sfts/1", "https://sft.example:444/sfts/1"));
    assert_eq!(config.http.answer_timeout, Duration::from_millis(1500));
    assert_eq!(config.http.allowed_origins, Origins::List(vec!["https://app.example".into()]));
    let MediaAddresses::List(list) = config.media.addresses else { panic!("not a list") };
    assert_eq!(list[0].advertised, Some("192.0.2.1".parse().unwrap()));
    assert_eq!((config.media.dtls, config.admin.listen), (DtlsVersion::Auto, None));
    assert_eq!(config.wire.servers[0].to_string(), "https://a.example");
    assert_eq!(config.wire.redirect.unwrap().to_string(), "https://b.example/sfts/2");
}

#[test]
fn ranges_and_releases() {
    let range: Cidr = "10.1.0.0/16".parse().unwrap();
    assert!(range.contains("10.1.2.3".parse().unwrap()) && range.contains("::ffff:10.1.2.3".parse().unwrap()));
    assert!(!range.contains("10.2.0.0".parse().unwrap()) && !range.contains("fe80::1".parse().unwrap()));
    assert!("0.0.0.0/0".parse::<Cidr>().unwrap().contains("255.0.0.1".parse().unwrap()));
    assert!("2001:db8::/32".parse::<Cidr>().unwrap().contains("2001:db8:1::1".parse().unwrap()));
    for bad in ["10.0.0.0/33", "10.0.0/8", "", "::/129", "x"] {
        assert!(bad.parse::<Cidr>().is_err(), "{bad}");
    }
    for bad in ["<", "6.x", "1.2.3.4", "<99999999999"] {
        assert!(bad.parse::<crate::dialect::wire::Blacklist>().is_err(), "{bad}");
    }
}
