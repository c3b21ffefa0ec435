"""The demo's network: namespaces around one bridge. Owns their names, addresses and removal; knows nothing of media.

    sluice-pub --+
    sluice-rx1 --+-- br0 (in sluice-net) -- media0 (in sluice-sfu)
    sluice-rxN --+

The forwarder has one interface, media0, as on a media node. Addresses exist only inside the namespaces.
"""

import os
import signal
import subprocess
import time

NET = "sluice-net"
SFU = "sluice-sfu"
PUB = "sluice-pub"
SFU_DEVICE = "media0"
SFU_ADDRESS = "10.77.0.1"
PUB_ADDRESS = "10.77.0.11"
MAX_RECEIVERS = 200

# Without these a frame reaches XDP with its UDP checksum not filled in, or as one large frame of several packets.
OFFLOADS_OFF = ["rx", "off", "tx", "off", "sg", "off", "tso", "off", "gso", "off", "gro", "off"]


class NetError(Exception):
    """A command that sets the network up failed; the text says which and why."""


def receiver_namespace(number):
    """Namespace of receiver `number`, counted from 1."""
    return f"sluice-rx{number}"


def receiver_address(number):
    """IPv4 address of receiver `number`, counted from 1."""
    return f"10.77.0.{20 + number}"


def run(*command):
    """Runs a command to its end and returns what it printed; a failure is a NetError."""
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        reason = (done.stderr or done.stdout).strip() or f"exit code {done.returncode}"
        raise NetError(f"`{' '.join(command)}` failed: {reason}")
    return done.stdout


def inside(namespace, *command):
    """The command line that runs `command` inside `namespace`."""
    return ["ip", "netns", "exec", namespace, *command]


def _link(namespace, device, address, port):
    """Joins `namespace` to the bridge: `device` with `address` inside it, `port` on the bridge."""
    # One queue each way: the forwarder binds one AF_XDP socket per queue, and the demo wants one worker.
    run("ip", "link", "add", device, "netns", namespace, "numrxqueues", "1", "numtxqueues", "1",
        "type", "veth", "peer", "name", port, "netns", NET, "numrxqueues", "1", "numtxqueues", "1")
    run("ip", "-n", NET, "link", "set", port, "master", "br0", "up")
    run("ip", "-n", namespace, "addr", "add", f"{address}/24", "dev", device)
    run("ip", "-n", namespace, "link", "set", "lo", "up")
    run("ip", "-n", namespace, "link", "set", device, "up")
    run(*inside(namespace, "ethtool", "-K", device, *OFFLOADS_OFF))
    run(*inside(NET, "ethtool", "-K", port, *OFFLOADS_OFF))


def create(receivers):
    """Creates all namespaces for `receivers` receivers and proves that each peer reaches media0."""
    for namespace in [NET, SFU, PUB, *map(receiver_namespace, range(1, receivers + 1))]:
        run("ip", "netns", "add", namespace)
        # The demo is IPv4; router solicitations and the like would only blur the counters.
        run(*inside(namespace, "sh", "-c", "! test -d /proc/sys/net/ipv6 || "
                    "for c in all default; do echo 1 > /proc/sys/net/ipv6/conf/$c/disable_ipv6; done"))
    run("ip", "-n", NET, "link", "add", "br0", "type", "bridge", "stp_state", "0", "mcast_snooping", "0")
    run("ip", "-n", NET, "link", "set", "br0", "up")
    _link(SFU, SFU_DEVICE, SFU_ADDRESS, "p-sfu")
    _link(PUB, "pub0", PUB_ADDRESS, "p-pub")
    for number in range(1, receivers + 1):
        _link(receiver_namespace(number), "rx0", receiver_address(number), f"p-rx{number}")
    for address in [PUB_ADDRESS, *map(receiver_address, range(1, receivers + 1))]:
        _prove_reachable(address)


def _prove_reachable(address):
    """Sends one datagram from media0 and waits for the neighbour's answer: the network works before Sluice runs."""
    run(*inside(SFU, "bash", "-c", f"echo > /dev/udp/{address}/9"))
    for _ in range(100):
        if "lladdr" in run("ip", "-n", SFU, "neigh", "show", address):
            return
        time.sleep(0.03)
    raise NetError(f"no answer from {address} across the bridge of {NET}")


def leftovers():
    """Namespaces of the demo that exist now."""
    names = [line.split()[0] for line in run("ip", "netns", "list").splitlines() if line.strip()]
    return [name for name in names if name in (NET, SFU, PUB) or _is_receiver(name)]


def _is_receiver(name):
    return name.startswith("sluice-rx") and name.removeprefix("sluice-rx").isdigit()


def _pids(namespace):
    done = subprocess.run(["ip", "netns", "pids", namespace], capture_output=True, text=True, check=False)
    return [int(pid) for pid in done.stdout.split() if int(pid) != os.getpid()]


def remove_all():
    """Ends every process inside the demo's namespaces and deletes them. Never raises; returns what stayed."""
    present = leftovers()
    for namespace in present:
        for wanted in (signal.SIGTERM, signal.SIGKILL):
            for pid in _pids(namespace):
                try:
                    os.kill(pid, wanted)
                except ProcessLookupError:
                    pass
            for _ in range(20):
                if not _pids(namespace):
                    break
                time.sleep(0.05)
    for namespace in present:
        subprocess.run(["ip", "netns", "del", namespace], capture_output=True, check=False)
    return leftovers()


def udp_counters(namespace):
    """The kernel's UDP counters of a namespace, e.g. InDatagrams, InErrors, InCsumErrors, OutDatagrams."""
    rows = [line.split()[1:] for line in run(*inside(namespace, "cat", "/proc/net/snmp")).splitlines()
            if line.startswith("Udp:")]
    return {name: int(value) for name, value in zip(rows[0], rows[1])}


def wait_bound(namespace, ports, seconds):
    """Waits until UDP sockets are bound to all `ports` in `namespace`; False after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        listing = run(*inside(namespace, "ss", "-Hlun"))
        bound = {line.split()[3].rsplit(":", 1)[1] for line in listing.splitlines() if line.strip()}
        if all(str(port) in bound for port in ports):
            return True
        time.sleep(0.05)
    return False
