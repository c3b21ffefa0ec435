//! Garbage, floods and forgeries at every door of both processes while a call runs: the call goes on unharmed, memory
//! stays bounded, and what was refused was counted.
#![allow(clippy::unwrap_used, reason = "a panic is how a test fails")]

mod support;

use std::io::{Read as _, Write as _};
use std::net::UdpSocket;
use std::time::{Duration, Instant};

use serde_json::json;
use support::client::{Client, abandon, call, confconn, message};
use support::stun::Check;
use support::{CONV, Lab, wait};

/// KiB that either process may grow by while it is attacked.
const GROWTH: u64 = 64 << 10;

/// Runs `attack` beside a call and checks that nothing happened to it.
fn beside_a_call(more: &str, attack: impl FnOnce(&mut Lab, &[Client; 2])) {
    let mut lab = Lab::start(more);
    let clients = call(&lab);
    let before = [lab.control.resident(), lab.forwarder.resident()];
    attack(&mut lab, &clients);
    lab.assert_alive();
    for client in &clients {
        client.hears_on(25);
        let pongs = client.inner().pongs;
        client.wait("an answer to a PING", |inner| inner.pongs > pongs);
        client.assert_unharmed();
        assert_eq!(client.inner().listed.len(), 2);
    }
    let after = [lab.control.resident(), lab.forwarder.resident()];
    println!("resident KiB before {before:?}, after {after:?}");
    for (before, after) in before.into_iter().zip(after) {
        assert!(after < before + GROWTH, "{before} KiB became {after}");
    }
    // Who comes now is served.
    let late = Client::join(&lab, "carol", false);
    late.wait("a place in the list", |inner| inner.listed.len() == 3);
    late.hears_on(10);
}

/// A seeded generator.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 11
    }

    fn bytes(&mut self, first: u8, most: u64) -> Vec<u8> {
        let length = self.next() % most + 1;
        let mut bytes: Vec<u8> = (0..length).map(|_| self.next() as u8).collect();
        bytes[0] = first;
        bytes
    }
}

#[test]
fn abandoned_calls_expire_and_are_limited() {
    beside_a_call("allocations = 300\nallocation_timeout = 2", |lab, _| {
        let start = Instant::now();
        for n in 0..1_500_u32 {
            // From 30 networks, 50 each: below the limit of a source, above that of the node.
            let from = format!("127.{}.0.{}", 100 + n % 30, 1 + n % 200);
            let answer = abandon(lab, &from, &format!("abandoned{n}"), &format!("user{n}"));
            assert_eq!(answer.json()["type"], "SETUP");
        }
        let rate = 1_500.0 / start.elapsed().as_secs_f64();
        println!("{rate:.0} abandoned calls a second");
        // An allocation costs the forwarder nothing.
        assert_eq!(lab.snapshot().legs.len(), 2);
        // The first one gave way long ago, and the last one expires: an answer to either comes too late.
        let late = |lab: &Lab, n: u32| {
            let text = message(&format!("abandoned{n}"), "SETUP", &format!("user{n}"), true, &json!({"sdp": "x"}));
            lab.post(&text)
        };
        let first = late(lab, 0);
        assert!(first.status == 400 && first.body.contains("no offer waits"), "{first:?}");
        wait("the last one to expire", || late(lab, 1_499).body.contains("no offer waits"));
    });
}

#[test]
fn one_source_only_pushes_out_its_own() {
    beside_a_call("allocations_per_source = 8", |lab, _| {
        assert_eq!(abandon(lab, "127.50.0.1", "other", "other").status, 200);
        for n in 0..100 {
            assert_eq!(abandon(lab, &format!("127.60.0.{}", 1 + n), &format!("c{n}"), "mallory").status, 200);
        }
        let of = |conv: &str, user: &str| lab.post(&message(conv, "SETUP", user, true, &json!({"sdp": "x"}))).body;
        assert!(of("c0", "mallory").contains("no offer waits"));
        assert!(of("other", "other").contains("sdp:"), "the other source's offer still waits");
        assert!(of("c99", "mallory").contains("sdp:"));
    });
}

#[test]
fn http_garbage_is_answered_and_slow_clients_are_let_go() {
    beside_a_call("", |lab, _| {
        let whole = confconn("x1", "eve", false).to_string();
        let head = |length: usize| {
            format!(
                "POST /sft/x1 HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: {length}\r\n\r\n"
            )
        };
        let status = |answer: &[u8]| String::from_utf8_lossy(answer).split(' ').nth(1).unwrap_or("none").to_owned();
        let patience = Duration::from_secs(20);
        // Every truncation of the body that claims to be whole.
        for cut in (0..whole.len()).step_by(7) {
            let answer = lab.post_from("127.0.0.1", "x1", &whole[..cut]);
            assert_eq!(answer.status, 400, "{}", answer.body);
            assert!(!answer.body.trim().is_empty(), "a refusal says why");
        }
        let mut random = Random(11);
        for _ in 0..100 {
            let first = random.next() as u8;
            let garbage = random.bytes(first, 600);
            let answer = lab.raw(&[&garbage[..], b"\r\n\r\n"].concat(), patience);
            assert!(answer.is_empty() || status(&answer).starts_with('4'), "{}", String::from_utf8_lossy(&answer));
        }
        let body = random.bytes(b'{', 4_000);
        let answer = lab.raw(&[head(body.len()).as_bytes(), &body].concat(), patience);
        assert_eq!(status(&answer), "400");
        let answer = lab.raw(head(300 << 10).as_bytes(), patience);
        assert_eq!(status(&answer), "413");
        // A head and a body that never end, byte by byte or not at all; many of them at once.
        let slow: Vec<_> = (0..100)
            .map(|n| {
                let mut stream = lab.connect(&format!("127.70.0.{}", 1 + n)).unwrap();
                let text = if n % 2 == 0 { head(500) } else { "POST /sft/x1 HT".to_owned() };
                stream.write_all(text.as_bytes()).unwrap();
                stream.set_read_timeout(Some(patience)).unwrap();
                stream
            })
            .collect();
        assert_eq!(lab.post(&confconn("x2", "eve", false)).status, 200, "others are served meanwhile");
        for (n, mut stream) in slow.into_iter().enumerate() {
            let mut answer = Vec::new();
            // Closed by the listener, well before our own patience ends.
            stream.read_to_end(&mut answer).unwrap();
            assert!(n % 2 == 1 || status(&answer) == "408", "{}", String::from_utf8_lossy(&answer));
        }
    });
}

/// A forged check for a client's call.
fn forged(client: &Client, password: &str, n: u32, padding: usize) -> Vec<u8> {
    let mut transaction = *b"????forgerys";
    transaction[..4].copy_from_slice(&n.to_be_bytes());
    let inner = client.inner();
    let username = format!("{}:{}", inner.theirs.ufrag, inner.ours.ufrag);
    Check { username, password, transaction, use_candidate: true, controlling: true, padding }.write()
}

#[test]
fn stun_garbage_forgeries_and_replays_change_nothing() {
    beside_a_call("", |lab, [alice, bob]| {
        let stranger = UdpSocket::bind("127.0.0.2:0").unwrap();
        stranger.set_nonblocking(true).unwrap();
        let before = lab.counters();
        let mut random = Random(12);
        let sent = alice.inner().sent.clone();
        let mut bytes_sent = 0;
        for n in 0..2_000_u32 {
            let mut one = match n % 5 {
                0 => random.bytes((n % 4) as u8, 1_200),
                1 => forged(alice, "0123456789abcdef01234567", n, 0),
                2 => forged(bob, "wrong", n, 1_080),
                // Real checks and DTLS of the client, from an address that is not the client's.
                3 => sent[n as usize % sent.len()].clone(),
                _ => {
                    let whole = forged(alice, "wrong", n, 0);
                    whole[..random.next() as usize % whole.len()].to_vec()
                }
            };
            if one.is_empty() {
                one.push(0);
            }
            bytes_sent += one.len();
            // The stranger's checks, and the same from the client's own address.
            let _ = stranger.send_to(&one, lab.media);
            if n % 5 != 3 {
                alice.send(&one);
            }
            if n % 50 == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        std::thread::sleep(Duration::from_millis(500));
        let mut bytes_back = 0;
        let mut buffer = [0; 2048];
        while let Ok((length, _)) = stranger.recv_from(&mut buffer) {
            assert!(buffer[0] < 4, "a stranger got something that is no STUN: {}", buffer[0]);
            bytes_back += length;
        }
        println!("a stranger sent {bytes_sent} bytes and got {bytes_back}");
        assert!(bytes_back * 3 < bytes_sent);
        let counted = lab.counted(&before);
        println!("{counted:?}");
        for reason in ["drops.stun_integrity", "drops.stun_malformed", "drops.packet_in_limited"] {
            assert!(counted.get(reason).is_some_and(|n| *n > 0), "{reason}: {counted:?}");
        }
    });
}

#[test]
fn a_spoofed_but_authentic_check_brings_a_few_checks_and_no_media() {
    beside_a_call("", |lab, [alice, _]| {
        let victim = UdpSocket::bind("127.0.0.3:0").unwrap();
        victim.set_nonblocking(true).unwrap();
        let check = alice.inner().check().write();
        victim.send_to(&check, lab.media).unwrap();
        let (mut checks, mut others, mut bytes) = (0, 0, 0);
        let until = Instant::now() + Duration::from_secs(4);
        let mut buffer = [0; 2048];
        while Instant::now() < until {
            while let Ok((length, _)) = victim.recv_from(&mut buffer) {
                bytes += length;
                if buffer[0] < 4 { checks += 1 } else { others += 1 }
            }
            std::thread::sleep(Duration::from_millis(5));
        }
        println!("{} bytes sent, {checks} STUN messages back, {bytes} bytes, {others} others", check.len());
        assert_eq!(others, 0, "media or DTLS to an address that never answered");
        assert!((1..=12).contains(&checks), "{checks}");
        assert!(bytes <= check.len() * 12, "{bytes}");
    });
}

#[test]
fn dtls_garbage_and_hello_floods_change_nothing() {
    beside_a_call("", |lab, [alice, _]| {
        let stranger = UdpSocket::bind("127.0.0.4:0").unwrap();
        let mut random = Random(13);
        // A ClientHello as the client sent it; none of it is for strangers.
        let hello = alice.inner().hello.clone();
        // Handshake, and the message a ClientHello.
        assert_eq!((hello[0], hello[13]), (22, 1));
        let before = lab.counters();
        for n in 0..3_000_u32 {
            let kind = 20 + (n % 7) as u8;
            let mut one = random.bytes(kind, 1_200);
            if n % 3 == 0 && one.len() > 13 {
                // A record header that is true.
                let length = (one.len() - 13) as u16;
                one[1..3].copy_from_slice(&[0xfe, 0xfd]);
                one[11..13].copy_from_slice(&length.to_be_bytes());
            }
            let one = if n % 4 == 0 { &hello } else { &one };
            let _ = stranger.send_to(one, lab.media);
            alice.send(one);
            if n % 50 == 0 {
                std::thread::sleep(Duration::from_millis(2));
            }
        }
        stranger.set_nonblocking(true).unwrap();
        std::thread::sleep(Duration::from_millis(300));
        assert!(stranger.recv_from(&mut [0; 2048]).is_err(), "a stranger's DTLS is not answered");
        let counted = lab.counted(&before);
        println!("{counted:?}");
        assert!(counted.keys().any(|key| key.starts_with("drops.")), "refusals are counted: {counted:?}");
    });
}

#[test]
fn a_channel_flood_ends_its_client_alone() {
    beside_a_call("message_burst = 50\nmessages_per_second = 20", |lab, _| {
        let mallory = Client::join(lab, "mallory", false);
        mallory.wait("a channel", |inner| inner.channel.is_some() && inner.listed.len() == 3);
        for n in 0..20 {
            mallory.say(["{", "nonsense", "{\"type\":7}", "[]", "\u{0}"][n % 5]);
        }
        mallory.hears_on(10);
        assert_eq!(mallory.inner().closed, [], "a few unreadable messages are left out");
        for _ in 0..200 {
            mallory.say("{\"version\":\"3.0\",\"type\":\"PING\",\"resp\":true}");
        }
        mallory.wait("its end", |inner| !inner.closed.is_empty());
        let large = Client::join(lab, "large", false);
        large.wait("a channel", |inner| inner.channel.is_some() && inner.listed.len() == 3);
        large.say(&"x".repeat(100 << 10));
        large.wait("its end", |inner| !inner.closed.is_empty());
        wait("their legs to go", || lab.snapshot().legs.len() == 2);
        drop((mallory, large));
        assert_eq!(lab.post(&confconn(CONV, "dave", false)).status, 200);
    });
}
