"""The judge: reads what a receiver recorded and says PASS or FAIL with reasons. Pure: files in, verdict out."""

import array
import dataclasses
import math
import statistics
import sys

WINDOW = 4800  # samples, 0.1 s at 48 kHz: 440 Hz is exactly bin 44, so a clean tone leaks into no other bin
SAMPLE_RATE = 48000
SHARE_NEEDED = 0.90
TONE_DB_NEEDED = 20.0


@dataclasses.dataclass
class Frames:
    """What became of the published frames at one receiver."""

    sent: int
    received: int
    equal: int
    wrong: int
    starts_at_key: bool


@dataclasses.dataclass
class Tone:
    """Seconds recorded, seconds in which the tone stands out, and by how much (median, dB over all the rest)."""

    seconds: float
    tone_seconds: float
    decibel: float


def read_framemd5(text):
    """Hashes of ffmpeg's framemd5 format in order; its last column is the hash."""
    return [line.rsplit(",", 1)[1].strip() for line in text.splitlines() if line and not line.startswith("#")]


def read_checksumsink(text):
    """Hashes of GStreamer's checksumsink in order: lines of `h:mm:ss.nnnnnnnnn hash`."""
    rows = [line.split() for line in text.splitlines()]
    return [row[1] for row in rows if len(row) == 2 and ":" in row[0] and len(row[1]) == 32]


def compare_frames(reference, received, key_frame_every):
    """Compares decoded frames with the publisher's own decode.

    A frame is equal if its hash follows in the reference after the last equal one; everything else (a damaged,
    repeated or reordered frame) is wrong. A decoder starts with a key frame, so the first equal frame must be one.
    """
    if len(set(reference)) != len(reference):
        raise ValueError("two frames of the pattern are alike: order cannot be judged by hashes")
    place = {digest: index for index, digest in enumerate(reference)}
    last, first, equal = -1, None, 0
    for digest in received:
        index = place.get(digest, -1)
        if index > last:
            first = index if first is None else first
            last = index
            equal += 1
    return Frames(len(reference), len(received), equal, len(received) - equal,
                  first is not None and first % key_frame_every == 0)


def read_wav(data):
    """Samples of a 16-bit mono 48 kHz WAV file. Sizes in the header are not trusted: a stopped writer leaves them 0."""
    if data[:4] != b"RIFF" or data[8:12] != b"WAVE":
        raise ValueError("not a WAV file")
    position = 12
    while position + 8 <= len(data):
        name, size = data[position:position + 4], int.from_bytes(data[position + 4:position + 8], "little")
        body = position + 8
        if name == b"fmt ":
            channels, rate = int.from_bytes(data[body + 2:body + 4], "little"), int.from_bytes(data[body + 4:body + 8],
                                                                                            "little")
            bits = int.from_bytes(data[body + 14:body + 16], "little")
            if (channels, rate, bits) != (1, SAMPLE_RATE, 16):
                raise ValueError(f"{channels} channels of {bits} bits at {rate} Hz instead of 1 of 16 at {SAMPLE_RATE}")
        if name == b"data":
            rest = data[body:] if size == 0 else data[body:body + size]
            samples = array.array("h")
            samples.frombytes(rest[:len(rest) // 2 * 2])
            if sys.byteorder == "big":
                samples.byteswap()
            return samples
        position = body + size + size % 2
    raise ValueError("no samples")


def tone_over_rest(window, frequency):
    """Energy of `frequency` over all other energy of the window, in dB (Goertzel); -200 for silence, at most 200."""
    coefficient = 2.0 * math.cos(2.0 * math.pi * frequency / SAMPLE_RATE)
    before, now, total = 0.0, 0.0, 0.0
    for sample in window:
        before, now = now, sample + coefficient * now - before
        total += sample * sample
    tone = 2.0 * (now * now + before * before - coefficient * now * before) / len(window)
    # Below one least significant bit of root mean square there is no tone, whatever its share.
    if total < len(window) or tone <= 0.0:
        return -200.0
    return min(200.0, 10.0 * math.log10(tone / max(total - tone, total * 1e-20)))


def measure_tone(samples, frequency):
    """Measures the tone over whole windows of 0.1 s."""
    levels = [tone_over_rest(samples[start:start + WINDOW], frequency)
              for start in range(0, len(samples) - WINDOW + 1, WINDOW)]
    heard = sum(1 for level in levels if level >= TONE_DB_NEEDED)
    return Tone(len(samples) / SAMPLE_RATE, heard * WINDOW / SAMPLE_RATE,
                statistics.median(levels) if levels else -200.0)


def judge(frames, tone, seconds, datagrams, counters):
    """Reasons why a receiver failed; an empty list is a pass.

    `datagrams`: kernel UDP counters of the receiver's namespace. `counters`: the forwarder's packets out per stream
    of this receiver (`audio`, `video`), None where it told none.
    """
    reasons = []
    if frames.equal < SHARE_NEEDED * frames.sent:
        reasons.append(f"{frames.equal} of {frames.sent} frames arrived equal, {SHARE_NEEDED:.0%} are needed")
    if frames.wrong:
        reasons.append(f"{frames.wrong} decoded frames differ from what was published")
    if not frames.starts_at_key:
        reasons.append("the first equal frame is no key frame")
    if tone.tone_seconds < SHARE_NEEDED * seconds:
        reasons.append(f"the tone was heard for {tone.tone_seconds:.1f} s of {seconds} s")
    if tone.decibel < TONE_DB_NEEDED:
        reasons.append(f"the tone is {tone.decibel:.0f} dB over the rest, {TONE_DB_NEEDED:.0f} are needed")
    for name in ("InCsumErrors", "InErrors"):
        if datagrams.get(name, 0):
            reasons.append(f"the kernel counted {datagrams[name]} {name} at the receiver")
    if None in counters.values():
        reasons.append("the forwarder tells no packet counters for a stream of this receiver")
    # More than that may arrive: RTCP is no packet of a stream.
    elif datagrams.get("InDatagrams", 0) < sum(counters.values()):
        reasons.append(f"the forwarder sent {sum(counters.values())} packets, "
                       f"{datagrams.get('InDatagrams', 0)} arrived")
    elif 0 in counters.values():
        reasons.append("the forwarder sent nothing on a stream of this receiver")
    return reasons


def judge_path(io, published, opened, path):
    """Reasons why the forwarder's side failed: packets it did not open, or that took another way than asked for.

    `path`: `mode` of the endpoint, packets that came `fast` (AF_XDP) and `slow` (kernel socket).
    """
    reasons = []
    if opened != published:
        reasons.append(f"published {published} packets, the forwarder opened {opened}")
    if io == "xdp":
        refused = "; ".join(f"{step['mode']}: {step['reason']}" for step in path.get("refused", []))
        if not path["mode"].startswith("xdp"):
            reasons.append(f"the endpoint runs on {path['mode']}, not on AF_XDP ({refused or 'no reason told'})")
        elif path["fast"] < SHARE_NEEDED * published:
            reasons.append(f"{path['fast']} of {published} packets came by AF_XDP, {path['slow']} by the kernel socket")
    elif path["mode"] != "udp":
        reasons.append(f"the endpoint runs on {path['mode']}, not on udp")
    return reasons
