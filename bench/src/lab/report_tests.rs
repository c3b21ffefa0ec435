use clap::Parser;

use super::*;
use crate::guard::Usage;

#[derive(Parser)]
struct Line {
    #[command(flatten)]
    arguments: Arguments,
}

fn trial(egress_pps: f64) -> Counted {
    let usage = Usage { seconds: 2.0, generator_cpu: 0.99, target_cpu_s: 2.0, foreign_cpu_s: 0.01 };
    let latency = Percentiles { count: 10, p50: egress_pps, p99: 2.0, p999: 3.0, max: 4.0 };
    let trial = Trial {
        egress_pps,
        ingress_pps: egress_pps / 50.0,
        loss: 0.0,
        cpu_us_per_packet: 1e6 / egress_pps,
        forwarder_cpu: 1.0,
        usage,
        unsent: 0,
        generator_late_us: None,
        latency_us: Some(latency),
        sink: crate::sink::check::Received::default(),
        discard: None,
    };
    (trial, BTreeMap::from([("policed".to_owned(), 3)]))
}

#[test]
fn medians() {
    assert!((median(vec![3.0, 1.0, 2.0]) - 2.0).abs() < f64::EPSILON);
    assert!((median(vec![4.0, 1.0, 2.0, 3.0]) - 2.5).abs() < f64::EPSILON);
    assert!(median(Vec::new()).abs() < f64::EPSILON);
}

#[test]
fn a_report_has_the_keys_that_are_promised() {
    let Line { arguments } = Line::parse_from(["lab", "--io", "udp-gso", "--profile", "aes256-gcm", "--fanout", "50"]);
    let discarded = vec![Discarded { io: Target::UdpGso, run: 2, reason: "noise".to_owned() }];
    let trials = [trial(100.0), trial(300.0), trial(200.0)];
    let json = serde_json::to_value(report(&arguments, Target::UdpGso, &trials, discarded)).unwrap();
    for (key, want) in [
        ("io", "\"udp-gso\""),
        ("profile", "\"aes256-gcm\""),
        ("payload_bytes", "1200"),
        ("fanout", "50"),
        ("runs", "3"),
        ("egress_pps", "200.0"),
        ("ingress_pps", "4.0"),
        ("loss", "0.0"),
        ("cpu_us_per_packet", "5000.0"),
        ("generator_cpu", "0.99"),
        ("egress_range", "[100.0,300.0]"),
        ("drops", "{\"policed\":3}"),
    ] {
        assert_eq!(json[key].to_string(), want, "{key}");
    }
    assert_eq!(json["latency_us"]["p50"], 200.0);
    for key in ["p99", "p999", "max"] {
        assert!(json["latency_us"][key].is_number());
    }
    assert_eq!(json["discarded"][0]["reason"], "noise");
}

#[test]
fn rtpengine_gets_the_profile_that_it_takes() {
    let gcm = Protection(Some(Profile::AeadAes256Gcm));
    assert_eq!(Target::Rtpengine.protections(gcm), (Protection(Some(Profile::Aes128CmSha1_80)), gcm));
    assert_eq!(Target::Rtpengine.protections(Protection(None)), (Protection(None), Protection(None)));
    assert_eq!(Target::Xdp.protections(gcm), (gcm, gcm));
}
