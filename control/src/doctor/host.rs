//! Checks of the machine: kernel, capabilities, memory limits, AF_XDP, firewall.

use std::fs;
use std::path::Path;

use super::Finding;
use crate::netdev::link;

const HOST: &str = "host";
const CAP_NET_ADMIN: u32 = 12;
const CAP_NET_RAW: u32 = 13;
const CAP_IPC_LOCK: u32 = 14;
const CAP_SYS_ADMIN: u32 = 21;
const CAP_PERFMON: u32 = 38;
const CAP_BPF: u32 = 39;
/// UMEM and rings of one worker with the default pool sizes, in bytes.
const LOCKED_NEEDED: u64 = 64 << 20;

/// What the checks look at, gathered once.
#[derive(Debug)]
pub(super) struct Host {
    release: String,
    /// Whose capabilities and limits these are.
    process: String,
    status: String,
    limits: String,
    meminfo: String,
    btf: bool,
    /// The error of opening an AF_XDP socket.
    xdp_socket: Option<i32>,
}

impl Host {
    /// This machine; capabilities and limits of `forwarder` if it runs, else of this process.
    pub(super) fn here(forwarder: Option<u32>) -> Host {
        let read = |path: &str| fs::read_to_string(path).unwrap_or_default();
        let id = forwarder.map_or_else(|| "self".to_owned(), |pid| pid.to_string());
        let process = forwarder.map_or_else(|| "this user".to_owned(), |pid| format!("forwarder {pid}"));
        Host {
            release: read("/proc/sys/kernel/osrelease").trim().to_owned(),
            process,
            status: read(&format!("/proc/{id}/status")),
            limits: read(&format!("/proc/{id}/limits")),
            meminfo: read("/proc/meminfo"),
            btf: Path::new("/sys/kernel/btf/vmlinux").exists(),
            xdp_socket: xdp_socket(),
        }
    }

    pub(super) fn check(&self) -> Vec<Finding> {
        vec![self.kernel(), self.af_xdp(), self.capabilities(), self.memlock(), self.huge_pages(), self.btf()]
    }

    fn kernel(&self) -> Finding {
        let mut parts = self.release.split(|c: char| !c.is_ascii_digit()).map(|n| n.parse().unwrap_or(0));
        let version: (u32, u32) = (parts.next().unwrap_or(0), parts.next().unwrap_or(0));
        let found = format!("Linux {}", self.release);
        match version {
            (0, _) => Finding::warn("kernel", HOST, "release unknown", "/proc is not readable here"),
            v if v < (5, 9) => {
                let why = "XDP links, which detach the program when the forwarder dies, came with Linux 5.9";
                Finding::bad("kernel", HOST, found, why).fix("install a kernel of 5.11 or later")
            }
            v if v < (5, 11) => {
                let why = "preferred busy polling came with Linux 5.11; latency will be higher";
                Finding::warn("kernel", HOST, found, why).fix("install a kernel of 5.11 or later")
            }
            _ => Finding::ok("kernel", HOST, found),
        }
    }

    fn af_xdp(&self) -> Finding {
        match self.xdp_socket {
            None => Finding::ok("af_xdp", HOST, "AF_XDP sockets can be opened"),
            Some(libc::EAFNOSUPPORT) => {
                let why = "without AF_XDP every packet takes the kernel's UDP socket";
                let found = "this kernel has no AF_XDP (CONFIG_XDP_SOCKETS)";
                Finding::bad("af_xdp", HOST, found, why).fix("install a kernel with CONFIG_XDP_SOCKETS=y")
            }
            Some(code) => {
                let error = std::io::Error::from_raw_os_error(code);
                let why = "the forwarder falls back to the kernel's UDP socket where this happens to it too";
                Finding::warn("af_xdp", HOST, format!("an AF_XDP socket cannot be opened here: {error}"), why)
                    .fix("run `sudo sluice doctor`")
            }
        }
    }

    fn capabilities(&self) -> Finding {
        let Some(effective) = field(&self.status, "CapEff:").and_then(|v| u64::from_str_radix(v, 16).ok()) else {
            return Finding::warn("capabilities", HOST, "unknown", "/proc is not readable here");
        };
        let has = |bit: u32| effective >> bit & 1 == 1;
        let mut missing = Vec::new();
        if !has(CAP_NET_ADMIN) {
            missing.push("CAP_NET_ADMIN");
        }
        if !has(CAP_NET_RAW) {
            missing.push("CAP_NET_RAW");
        }
        // The verifier lets a program do arithmetic with packet pointers only with CAP_PERFMON.
        for (bit, name) in [(CAP_BPF, "CAP_BPF"), (CAP_PERFMON, "CAP_PERFMON")] {
            if !has(bit) && !has(CAP_SYS_ADMIN) {
                missing.push(name);
            }
        }
        if missing.is_empty() {
            let found = format!("{} has CAP_NET_ADMIN, CAP_NET_RAW, CAP_BPF and CAP_PERFMON", self.process);
            return Finding::ok("capabilities", HOST, found);
        }
        let found = format!("{} lacks {}", self.process, missing.join(", "));
        let why = "loading the XDP program and opening AF_XDP sockets need them";
        let fix =
            "setcap cap_net_admin,cap_net_raw,cap_bpf,cap_perfmon,cap_ipc_lock+ep \"$(command -v sluice-forwarder)\"";
        Finding::bad("capabilities", HOST, found, why).fix(fix)
    }

    fn memlock(&self) -> Finding {
        let effective = field(&self.status, "CapEff:").and_then(|v| u64::from_str_radix(v, 16).ok()).unwrap_or(0);
        if effective >> CAP_IPC_LOCK & 1 == 1 {
            return Finding::ok("memlock", HOST, format!("{} may lock any amount (CAP_IPC_LOCK)", self.process));
        }
        let limit = field(&self.limits, "Max locked memory").unwrap_or("unknown");
        match (limit, limit.parse::<u64>()) {
            ("unlimited", _) => Finding::ok("memlock", HOST, "unlimited"),
            (_, Ok(bytes)) if bytes >= LOCKED_NEEDED => Finding::ok("memlock", HOST, format!("{bytes} bytes")),
            _ => {
                let why = "packet buffers are locked memory; with too little of it AF_XDP sockets are refused";
                let found = format!("{} may lock {limit} bytes", self.process);
                Finding::bad("memlock", HOST, found, why)
                    .fix("ulimit -l unlimited (or LimitMEMLOCK=infinity in the systemd unit)")
            }
        }
    }

    fn huge_pages(&self) -> Finding {
        let count = |key| field(&self.meminfo, key).and_then(|v| v.parse::<u64>().ok()).unwrap_or(0);
        let (total, free) = (count("HugePages_Total:"), count("HugePages_Free:"));
        if total == 0 {
            let why = "packet buffers in small pages cost address translations on every packet";
            return Finding::warn("huge_pages", HOST, "none are set aside", why).fix("sysctl -w vm.nr_hugepages=64");
        }
        Finding::ok("huge_pages", HOST, format!("{free} of {total} free"))
    }

    fn btf(&self) -> Finding {
        if self.btf {
            return Finding::ok("btf", HOST, "kernel type information is present");
        }
        let why = "without it the kernel cannot describe the loaded program, and tracing tools cannot either";
        Finding::warn("btf", HOST, "no /sys/kernel/btf/vmlinux", why)
            .fix("install a kernel with CONFIG_DEBUG_INFO_BTF=y")
    }
}

/// The first word after `key` in a file of lines.
fn field<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    text.lines().find_map(|line| line.strip_prefix(key))?.split_whitespace().next()
}

fn xdp_socket() -> Option<i32> {
    // SAFETY: plain system calls; the descriptor is closed before it could be lost.
    unsafe {
        let fd = libc::socket(libc::AF_XDP, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0);
        if fd < 0 {
            return std::io::Error::last_os_error().raw_os_error();
        }
        libc::close(fd);
    }
    None
}

/// Firewall rules that AF_XDP packets never meet.
pub(super) fn firewall() -> Vec<Finding> {
    const WHY: &str = "packets of media endpoints are taken off before the firewall; its rules do not apply to them, \
                       only Sluice's own policing does";
    let chains = match link::firewall_chains() {
        Ok(chains) => chains,
        Err(e) => {
            let legacy = fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
            if legacy.trim().is_empty() {
                return vec![Finding::ok("firewall", HOST, format!("no rules that can be seen ({e})"))];
            }
            vec![format!("iptables {}", legacy.split_whitespace().collect::<Vec<_>>().join(" "))]
        }
    };
    if chains.is_empty() {
        return vec![Finding::ok("firewall", HOST, "no chain filters received packets")];
    }
    let found = format!("chains on received packets: {}", chains.join(", "));
    vec![
        Finding::warn("firewall", HOST, found, WHY)
            .fix("nft list ruleset, and set limits in the table for what it was meant to keep from the media ports"),
    ]
}

#[cfg(test)]
mod tests {
    use super::super::Level;
    use super::*;

    fn host() -> Host {
        Host {
            release: "6.1.0-18-amd64".to_owned(),
            process: "this user".to_owned(),
            status: "Name:\tx\nCapEff:\t000001ffffffffff\n".to_owned(),
            limits: "Max locked memory         8388608              8388608              bytes\n".to_owned(),
            meminfo: "HugePages_Total:      64\nHugePages_Free:       60\n".to_owned(),
            btf: true,
            xdp_socket: None,
        }
    }

    #[test]
    fn a_good_host_is_fine() {
        assert!(host().check().iter().all(|f| f.level == Level::Ok), "{:#?}", host().check());
    }

    #[test]
    fn each_fault_is_found_with_a_cure() {
        type Case = (&'static str, Level, fn(&mut Host));
        let cases: [Case; 10] = [
            ("kernel", Level::Bad, |h| h.release = "5.4.0".to_owned()),
            ("kernel", Level::Warn, |h| h.release = "5.10.2".to_owned()),
            ("af_xdp", Level::Bad, |h| h.xdp_socket = Some(libc::EAFNOSUPPORT)),
            ("af_xdp", Level::Warn, |h| h.xdp_socket = Some(libc::EPERM)),
            // Everything but CAP_NET_RAW; IPC_LOCK stays.
            ("capabilities", Level::Bad, |h| h.status = "CapEff:\t000001ffffffdfff\n".to_owned()),
            ("capabilities", Level::Bad, |h| h.status = "CapEff:\t0000000000007000\n".to_owned()),
            // CAP_NET_ADMIN, CAP_NET_RAW, CAP_IPC_LOCK and CAP_BPF, but not CAP_PERFMON.
            ("capabilities", Level::Bad, |h| h.status = "CapEff:\t0000008000007000\n".to_owned()),
            // Everything but CAP_IPC_LOCK, so that the limit of 8 MiB counts.
            ("memlock", Level::Bad, |h| h.status = "CapEff:\t000001ffffffbfff\n".to_owned()),
            ("huge_pages", Level::Warn, |h| h.meminfo = String::new()),
            ("btf", Level::Warn, |h| h.btf = false),
        ];
        for (check, level, edit) in cases {
            let mut host = host();
            edit(&mut host);
            let wrong: Vec<Finding> = host.check().into_iter().filter(|f| f.level != Level::Ok).collect();
            assert_eq!(wrong.len(), 1, "{check}: {wrong:#?}");
            assert_eq!((wrong[0].check, wrong[0].level), (check, level));
            assert!(!wrong[0].why.is_empty() && wrong[0].fix.is_some(), "{wrong:#?}");
        }
    }
}
