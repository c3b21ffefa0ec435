//! What only the kernel-socket port does: traffic classes, segmentation, several endpoints, frames it cannot send.
#![allow(clippy::unwrap_used, reason = "helpers of tests may panic")]

use std::io;
use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsRawFd as _;
use std::time::Duration;

use sluice_forwarder::io::headers::Headers;
use sluice_forwarder::io::udp::{UdpOptions, bind_endpoint};
use sluice_forwarder::io::{PacketIo, PollMode, RxBurst, UdpIo};

fn port(sockets: Vec<UdpSocket>, segmentation: bool) -> UdpIo {
    let options = UdpOptions { segmentation, poll: PollMode::Interrupt, ..UdpOptions::default() };
    UdpIo::new(sockets, &options).unwrap()
}

fn peer(any: &str) -> UdpSocket {
    let peer = UdpSocket::bind(any).unwrap();
    peer.set_read_timeout(Some(Duration::from_secs(2))).unwrap();
    peer
}

fn submit(port: &mut UdpIo, headers: &Headers, payload: &[u8]) {
    let mut frame = port.acquire().unwrap();
    let at = headers.write(&mut frame, payload.len()).unwrap();
    frame[at..at + payload.len()].copy_from_slice(payload);
    port.submit(frame, at + payload.len());
}

/// The traffic class of the next packet.
fn traffic_class(socket: &UdpSocket) -> u8 {
    let mut buffer = [0_u8; 64];
    let mut control = [0_u64; 8];
    let mut part = libc::iovec { iov_base: buffer.as_mut_ptr().cast(), iov_len: buffer.len() };
    // SAFETY: an all-zero header is valid.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    message.msg_iov = &raw mut part;
    message.msg_iovlen = 1;
    message.msg_control = control.as_mut_ptr().cast();
    message.msg_controllen = size_of_val(&control);
    // SAFETY: the header points to locals.
    let len = unsafe { libc::recvmsg(socket.as_raw_fd(), &raw mut message, 0) };
    assert!(len > 0, "{}", io::Error::last_os_error());
    // SAFETY: the kernel filled the control block in with the only option asked for: one byte of type of service, or
    // a traffic class as an integer, of which the first byte is read here (little endian).
    unsafe {
        let header = libc::CMSG_FIRSTHDR(&raw const message);
        assert!(!header.is_null());
        libc::CMSG_DATA(header).read()
    }
}

#[test]
fn the_traffic_class_travels() {
    for (any, level, name) in
        [("127.0.0.1:0", libc::IPPROTO_IP, libc::IP_RECVTOS), ("[::1]:0", libc::IPPROTO_IPV6, libc::IPV6_RECVTCLASS)]
    {
        let peer = peer(any);
        let on = 1_i32;
        // SAFETY: the value is a local of the size given.
        assert_eq!(unsafe { libc::setsockopt(peer.as_raw_fd(), level, name, (&raw const on).cast(), 4) }, 0);
        let socket = bind_endpoint(any.parse().unwrap()).unwrap();
        let mut headers = Headers::new(socket.local_addr().unwrap(), peer.local_addr().unwrap());
        let mut port = port(vec![socket], false);
        for class in [46 << 2, 34 << 2, 0, 46 << 2] {
            headers.traffic_class = class;
            submit(&mut port, &headers, b"class");
            port.flush();
            assert_eq!(traffic_class(&peer), class, "{any}");
        }
    }
}

#[test]
fn runs_are_segmented_and_arrive_one_by_one() {
    let (peer, other) = (peer("127.0.0.1:0"), peer("127.0.0.1:0"));
    let socket = bind_endpoint("127.0.0.1:0".parse().unwrap()).unwrap();
    let local = socket.local_addr().unwrap();
    let mut port = port(vec![socket], true);
    let to_peer = Headers::new(local, peer.local_addr().unwrap());
    let to_other = Headers::new(local, other.local_addr().unwrap());
    // A run with a shorter end, a longer one after it, another class, another destination, empty packets.
    let sizes = [1200, 1200, 1200, 300, 1200, 1300, 1300, 0, 0, 5];
    for (number, size) in sizes.iter().enumerate() {
        let headers = if number == 6 { Headers { traffic_class: 8, ..to_peer } } else { to_peer };
        submit(&mut port, &headers, &vec![number as u8; *size]);
    }
    submit(&mut port, &to_other, b"other");
    for number in 0..50 {
        submit(&mut port, &to_peer, &[number; 700]);
    }
    let before = port.counters().kicks;
    port.flush();
    assert!(port.counters().kicks - before <= 2, "61 frames in one system call or two");
    assert!(port.segmentation(), "the kernel took segmented messages");
    let mut buffer = [0; 2000];
    for (number, size) in sizes.iter().enumerate() {
        let len = peer.recv(&mut buffer).unwrap();
        assert_eq!(buffer[..len], vec![number as u8; *size][..], "packet {number}");
    }
    for number in 0..50 {
        assert_eq!(peer.recv(&mut buffer).unwrap(), 700);
        assert_eq!(buffer[0], number);
    }
    assert_eq!(other.recv(&mut buffer).unwrap(), 5);
    assert_eq!(port.counters().tx_failed, 0);
}

#[test]
fn endpoints_share_a_port() {
    let sockets: Vec<_> =
        ["127.0.0.1:0", "127.0.0.2:0", "[::1]:0"].map(|any| bind_endpoint(any.parse().unwrap()).unwrap()).into();
    let mut port = port(sockets, false);
    let locals: Vec<SocketAddr> = port.local_addresses().collect();
    for local in &locals {
        let peer = peer(if local.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" });
        peer.send_to(b"hello", local).unwrap();
        port.wait(Duration::from_secs(1));
        let mut burst = RxBurst::new();
        assert_eq!(port.receive(&mut burst), 1);
        let frame = burst.pop().unwrap();
        let (headers, range) = Headers::parse(&frame).unwrap();
        assert_eq!((headers.source, headers.destination), (peer.local_addr().unwrap(), *local));
        assert_eq!(&frame[range], b"hello");
        port.release(frame);
        submit(&mut port, &Headers::new(*local, peer.local_addr().unwrap()), b"back");
        port.flush();
        let mut buffer = [0; 10];
        assert_eq!(peer.recv_from(&mut buffer).unwrap(), (4, *local));
    }
    assert!(port.remove(locals[1]));
    assert!(!port.remove(locals[1]));
    submit(&mut port, &Headers::new(locals[1], locals[0]), b"no socket");
    port.flush();
    assert_eq!(port.counters().tx_failed, 1);
}

#[test]
fn what_cannot_be_sent_is_counted_and_the_rest_goes() {
    let peer = peer("127.0.0.1:0");
    let socket = bind_endpoint("127.0.0.1:0".parse().unwrap()).unwrap();
    let good = Headers::new(socket.local_addr().unwrap(), peer.local_addr().unwrap());
    let mut port = port(vec![socket], true);
    let all = port.credit();
    submit(&mut port, &good, b"first");
    let mut garbage = port.acquire().unwrap();
    garbage.fill(0xff);
    port.submit(garbage, 60);
    let empty = port.acquire().unwrap();
    port.submit(empty, 0);
    submit(&mut port, &Headers { source: "127.0.0.9:9".parse().unwrap(), ..good }, b"not ours");
    // No route: port 0 is refused by the kernel.
    submit(&mut port, &Headers { destination: "127.0.0.1:0".parse().unwrap(), ..good }, b"nowhere");
    submit(&mut port, &good, b"last");
    port.flush();
    let counters = port.counters();
    assert_eq!((counters.tx_frames, counters.tx_failed), (6, 4));
    assert_eq!(port.credit(), all);
    let mut buffer = [0; 10];
    assert_eq!(peer.recv(&mut buffer).unwrap(), 5);
    assert_eq!(peer.recv(&mut buffer).unwrap(), 4);
    assert_eq!(&buffer[..4], b"last");
}

#[test]
fn a_socket_of_all_addresses_is_refused() {
    for any in ["0.0.0.0:0", "[::]:0"] {
        assert_eq!(bind_endpoint(any.parse().unwrap()).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }
}
