"""`./scripts/run --demo`: ffmpeg publishes, Sluice forwards, ffmpeg and GStreamer receive, and what they decoded is
compared with what was published. Owns the order of steps and the clean-up; needs root.

Exit codes: 0 all receivers passed, 1 a receiver or the forwarder failed, 2 wrong usage, 3 the demo could not run, 130 interrupted.
"""

import argparse
import contextlib
import fcntl
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import check
import media
import net
import plan
import report
import sfu

LOCK = "/run/lock/sluice-demo.lock"


def arguments():
    """The command line."""
    parser = argparse.ArgumentParser(prog="scripts/run --demo", description=__doc__.split("\n\n", maxsplit=1)[0])
    parser.add_argument("--seconds", type=int, default=12, help="length of the published media, 3 to 600 (default 12)")
    parser.add_argument("--receivers", type=int, default=3,
                        help=f"number of receivers, 1 to {net.MAX_RECEIVERS} (default 3: one per profile)")
    parser.add_argument("--io", choices=["xdp", "udp"], default="xdp", help="how the forwarder takes packets")
    parser.add_argument("--json", action="store_true", help="one JSON object on standard output, all else on the other")
    parser.add_argument("--keep", action="store_true", help="keep recordings and logs of a failed run")
    parser.add_argument("--bin-dir", required=True, help="directory of sluice and sluice-forwarder")
    args = parser.parse_args()
    if not 3 <= args.seconds <= 600:
        parser.error("--seconds: 3 to 600")
    if not 1 <= args.receivers <= net.MAX_RECEIVERS:
        parser.error(f"--receivers: 1 to {net.MAX_RECEIVERS}")
    return args


def say(text):
    """Tells the operator what happens; standard error, so that --json leaves standard output to the result."""
    print(f"demo: {text}", file=sys.stderr, flush=True)


def spawn(namespace, command, out, err):
    """Starts a peer in its namespace, in a session of its own: Ctrl-C reaches only the demo, which then tidies up."""
    with open(out, "wb") as stdout, open(err, "wb") as stderr:
        return subprocess.Popen(net.inside(namespace, *command), stdin=subprocess.DEVNULL, stdout=stdout,
                                stderr=stderr, start_new_session=True)


def finish(process, seconds):
    """Asks a peer to finish its recording (SIGINT) and waits; kills it after `seconds`."""
    # ffmpeg looks at the first signal between two packets and at the second while it waits for one.
    for _ in range(2):
        if process.poll() is None:
            process.send_signal(signal.SIGINT)
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(timeout=0.5)
    try:
        process.wait(timeout=seconds)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


@contextlib.contextmanager
def only_one():
    """Holds the demo's lock: its namespaces have fixed names, so a second run would remove those of the first."""
    os.makedirs(os.path.dirname(LOCK), exist_ok=True)
    with open(LOCK, "w", encoding="ascii") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise net.NetError(f"another demo is running (it holds {LOCK})") from None
        yield


@contextlib.contextmanager
def work_directory(keep):
    """A private directory in memory for keys, sockets and recordings; `keep()` decides whether it survives."""
    base = "/dev/shm" if os.access("/dev/shm", os.W_OK) else "/run"
    path = os.path.join(base, "sluice-demo")
    shutil.rmtree(path, ignore_errors=True)
    os.mkdir(path, 0o700)
    try:
        yield path
    finally:
        if keep():
            kept = f"/tmp/sluice-demo-{time.strftime('%Y%m%d-%H%M%S')}"
            # The keys have no use after the run, and the index file none without them.
            shutil.copytree(path, kept, ignore=shutil.ignore_patterns("*.toml", "*.sdp", "*.sock", "state"))
            say(f"recordings and logs are in {kept}")
        shutil.rmtree(path, ignore_errors=True)


@contextlib.contextmanager
def network(receivers):
    """The namespaces, made anew and removed at the end, whatever happens between."""
    stale = net.leftovers()
    if stale:
        say(f"removing what an earlier run left: {', '.join(stale)}")
        net.remove_all()
    try:
        net.create(receivers)
        yield
    finally:
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
        stayed = net.remove_all()
        say(f"could not remove {', '.join(stayed)}" if stayed else "all namespaces and processes are removed")


def run_media(args, directory, forwarder, rxs):
    """Publishes to the running forwarder and lets the receivers record; returns the stream counters at the end."""
    say(f"encoding {args.seconds} s of test pattern (VP8) and hashing every decoded frame")
    encoded, _ = media.encode_pattern(directory, args.seconds)
    audio_key, video_key = plan.Key.new("aes128-cm-sha1-80"), plan.Key.new("aes128-cm-sha1-80")

    say(f"starting sluice-forwarder on {net.SFU_DEVICE} ({args.io})")
    forwarder.start()
    table = os.path.join(directory, "table.toml")
    with open(os.open(table, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(plan.table(audio_key, video_key, rxs))
    forwarder.apply(table)
    say(f"programmed {len(rxs)} receivers with `sluice table apply`")

    with contextlib.ExitStack() as peers:
        running = {}
        for rx in rxs:
            running[rx.name] = spawn(rx.namespace, media.receiver(rx, directory),
                                     os.path.join(directory, f"{rx.name}.out"),
                                     os.path.join(directory, f"{rx.name}.log"))
            peers.callback(finish, running[rx.name], 5)
        for rx in rxs:
            if not net.wait_bound(rx.namespace, rx.ports, 15):
                raise media.MediaError(f"{rx.name} ({rx.peer}) did not open its ports; see its log with --keep")
        say(f"{len(rxs)} receivers wait; publishing {args.seconds} s of VP8 and Opus as SRTP AES-CM-80")
        source = spawn(net.PUB, media.publisher(encoded, args.seconds, audio_key, video_key),
                       os.path.join(directory, "pub.out"), os.path.join(directory, "pub.log"))
        peers.callback(finish, source, 1)
        deadline = time.monotonic() + args.seconds + 20
        while source.poll() is None:
            if not forwarder.running():
                raise sfu.SfuError(f"sluice-forwarder died while forwarding:\n{forwarder.log_tail()}")
            if time.monotonic() > deadline:
                raise media.MediaError("the publisher did not end in time")
            time.sleep(0.1)
        if source.returncode != 0:
            raise media.MediaError(f"the publisher ended with {source.returncode}")
        time.sleep(1.0)  # what is in flight arrives and is decoded
        packets = forwarder.stream_packets()
    return packets


def judge(args, directory, rxs, packets):
    """One row per receiver."""
    with open(os.path.join(directory, "pattern.framemd5"), encoding="ascii") as file:
        reference = check.read_framemd5(file.read())
    return [report.row(rx, directory, reference, args.seconds, packets) for rx in rxs]


def demo(args):
    """Runs everything; returns the result for --json."""
    rxs = plan.receivers(args.receivers)
    result = {"verdict": "FAIL", "io": args.io, "seconds": args.seconds, "receivers": [], "reasons": []}
    with only_one(), work_directory(lambda: args.keep and result["verdict"] != "PASS") as directory:
        say(f"creating {args.receivers + 3} network namespaces around a bridge")
        with network(args.receivers):
            forwarder = sfu.Forwarder(args.bin_dir, directory, args.io)
            try:
                packets = run_media(args, directory, forwarder, rxs)
                sent = net.udp_counters(net.PUB)["OutDatagrams"]
                result["path"] = forwarder.paths()
                result["counters"] = forwarder.query("counters")
            finally:
                code = forwarder.stop()
            result["published_packets"] = sent
            result["ingress_packets"] = sum(packets["in"].values())
            if code != 0:
                result["reasons"].append("sluice-forwarder " + ("had to be killed" if code is None
                                                                else f"ended with {code}"))
            result["reasons"] += check.judge_path(args.io, sent, result["ingress_packets"], result["path"])
            result["receivers"] = judge(args, directory, rxs, packets)
            passed = all(row["verdict"] == "PASS" for row in result["receivers"])
            result["verdict"] = "PASS" if passed and not result["reasons"] else "FAIL"
    return result


def interrupted(number, _frame):
    """Turns a signal into an exception, so that every clean-up runs."""
    raise SystemExit(128 + number)


def main():
    """Entry point."""
    args = arguments()
    if os.geteuid() != 0:
        say("network namespaces and AF_XDP need root")
        return 3
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, interrupted)
    try:
        result = demo(args)
    except sfu.SfuError as error:
        say(f"FAIL: {error}")
        return 1
    except (net.NetError, media.MediaError, OSError, subprocess.SubprocessError) as error:
        say(f"cannot run: {error}")
        return 3
    print(report.text(result), file=sys.stderr if args.json else sys.stdout)
    if args.json:
        print(json.dumps(result))
    return 0 if result["verdict"] == "PASS" else 1


if __name__ == "__main__":
    sys.exit(main())
