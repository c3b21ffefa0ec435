"""Turns recordings and counters into the table the operator reads. Owns the words; the judgement is check.py's."""

import os

import check
import media
import net


def _read(path):
    try:
        with open(path, "rb") as file:
            return file.read()
    except FileNotFoundError:
        return b""


def _hashes(rx, directory):
    if rx.peer == "gstreamer":
        printed = _read(os.path.join(directory, f"{rx.name}.out"))
        return check.read_checksumsink(printed.decode("utf-8", "replace"))
    path = os.path.join(directory, f"{rx.name}.framemd5")
    media.hash_frames(os.path.join(directory, f"{rx.name}.ivf"), path)
    return check.read_framemd5(_read(path).decode("ascii"))


def row(rx, directory, reference, seconds, packets):
    """The result of one receiver; to be called while its namespace still exists."""
    unreadable = []
    try:
        hashes = _hashes(rx, directory)
    except media.MediaError as error:
        hashes = []
        unreadable.append(f"its video cannot be decoded: {error}")
    frames = check.compare_frames(reference, hashes, media.KEY_FRAME_EVERY)
    try:
        samples = check.read_wav(_read(os.path.join(directory, f"{rx.name}.wav")))
    except ValueError as error:
        samples = []
        unreadable.append(f"its audio cannot be read: {error}")
    tone = check.measure_tone(samples, media.TONE_HZ)
    datagrams = net.udp_counters(rx.namespace)
    sent = {kind: packets["out"].get(f"{rx.name}-{kind}") for kind in ("audio", "video")}
    reasons = check.judge(frames, tone, seconds, datagrams, sent) + unreadable
    return {
        "name": rx.name, "peer": rx.peer, "profile": rx.profile,
        "frames_sent": frames.sent, "frames_received": frames.received,
        "frames_equal": frames.equal, "frames_wrong": frames.wrong,
        "audio_seconds": round(tone.seconds, 2), "tone_seconds": round(tone.tone_seconds, 2),
        "tone_db": round(tone.decibel, 1),
        "packets_forwarded": sent, "packets_arrived": datagrams["InDatagrams"],
        "checksum_errors": datagrams["InCsumErrors"],
        "verdict": "FAIL" if reasons else "PASS", "reasons": reasons,
    }


def text(result):
    """The result as a table with one line per receiver and the reasons below."""
    head = ["receiver", "peer", "SRTP profile", "frames sent", "decoded", "equal", "wrong", "tone s", "440 Hz dB",
            "packets out", "arrived", "verdict"]
    lines = [head]
    for entry in result["receivers"]:
        forwarded = entry["packets_forwarded"].values()
        lines.append([entry["name"], entry["peer"], entry["profile"], str(entry["frames_sent"]),
                      str(entry["frames_received"]), str(entry["frames_equal"]), str(entry["frames_wrong"]),
                      f"{entry['tone_seconds']:.1f}", f"{entry['tone_db']:.0f}",
                      "-" if None in forwarded else str(sum(forwarded)), str(entry["packets_arrived"]),
                      entry["verdict"]])
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    out = ["  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip() for line in lines]
    out.insert(1, "  ".join("-" * width for width in widths))
    for entry in result["receivers"]:
        out += [f"{entry['name']}: {reason}" for reason in entry["reasons"]]
    out += result["reasons"]
    path = result["path"]
    out.append(f"published {result['published_packets']} packets, the forwarder opened {result['ingress_packets']} "
               f"({path['mode']}: {path['fast']} by AF_XDP, {path['slow']} by the kernel socket)")
    out.append(f"demo: {result['verdict']}")
    return "\n".join(out)
