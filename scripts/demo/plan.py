"""Who takes part in the demo: addresses, ports, SSRCs, keys and the table file. Owns the numbers; starts nothing."""

import base64
import dataclasses
import os

import net

ENDPOINT_PORT = 5004
AUDIO_PT, VIDEO_PT = 111, 96
PUB_AUDIO_PORT, PUB_VIDEO_PORT = 5100, 5200
PUB_AUDIO_SSRC, PUB_VIDEO_SSRC = 0x0A0D0001, 0x0B1D0001
RX_AUDIO_PORT, RX_VIDEO_PORT = 6000, 6002

# Octets of master key and master salt (RFC 3711 section 8.2, RFC 7714 section 12).
KEY_LENGTHS = {
    "aes128-cm-sha1-80": 16 + 14,
    "aes128-gcm": 16 + 12,
    "aes256-gcm": 32 + 12,
}
CYCLE = [("ffmpeg", "aes128-cm-sha1-80"), ("gstreamer", "aes128-gcm"), ("gstreamer", "aes256-gcm")]


@dataclasses.dataclass(frozen=True)
class Key:
    """A master key and salt of one leg and direction. Random for each run: a static key is used once."""

    profile: str
    octets: bytes

    @staticmethod
    def new(profile):
        """A random key of a profile."""
        return Key(profile, os.urandom(KEY_LENGTHS[profile]))

    def base64(self):
        """Key and salt as SDES writes them."""
        return base64.b64encode(self.octets).decode()

    def hex(self):
        """Key and salt as GStreamer's caps take them."""
        return self.octets.hex()

    def __repr__(self):
        return f"Key({self.profile})"


@dataclasses.dataclass(frozen=True)
class Receiver:
    """One receiver. ffmpeg takes audio and video on a port each (two legs); GStreamer takes both on one (one leg)."""

    number: int
    peer: str
    profile: str
    audio_ssrc: int
    video_ssrc: int
    audio_pt: int
    video_pt: int
    audio_key: Key
    video_key: Key

    @property
    def name(self):
        """`rx1`, `rx2`, and so on."""
        return f"rx{self.number}"

    @property
    def namespace(self):
        """Its network namespace."""
        return net.receiver_namespace(self.number)

    @property
    def address(self):
        """Its IPv4 address."""
        return net.receiver_address(self.number)

    @property
    def bundled(self):
        """Whether audio and video share a port, a leg and a key."""
        return self.peer == "gstreamer"

    @property
    def ports(self):
        """UDP ports media arrives at."""
        return [RX_AUDIO_PORT] if self.bundled else [RX_AUDIO_PORT, RX_VIDEO_PORT]


def receivers(count):
    """`count` receivers that take turns in peer and profile, each with its own SSRCs, payload types and keys."""
    result = []
    for number in range(1, count + 1):
        peer, profile = CYCLE[(number - 1) % len(CYCLE)]
        audio_key = Key.new(profile)
        video_key = audio_key if peer == "gstreamer" else Key.new(profile)
        result.append(Receiver(number, peer, profile, 0x0A0E0000 + number, 0x0B1E0000 + number,
                               100 + number % 4, 104 + number % 4, audio_key, video_key))
    return result


def _leg(name, remote, direction, key):
    return (f'[[leg]]\nname = "{name}"\nendpoint = "media"\nkind = "client"\nremote = "{remote}"\n'
            f'{direction} = {{ profile = "{key.profile}", key = "{key.base64()}" }}\n')


def _ingress(name, ssrc, clock_rate, payload_type):
    return (f'[[ingress]]\nname = "{name}"\nleg = "{name}"\nssrc = {ssrc}\nkind = "{name.removeprefix("pub-")}"\n'
            f"clock_rate = {clock_rate}\npayload_types = [{payload_type}]\n")


def _egress(name, leg, ssrc, source, payload_types):
    return (f'[[egress]]\nname = "{name}"\nleg = "{leg}"\nssrc = {ssrc}\nsource = "{source}"\n'
            f"payload_types = {{ {payload_types[0]} = {payload_types[1]} }}\n")


def table(pub_audio_key, pub_video_key, rxs):
    """The table file (TOML) that forwards the publisher's two streams to all receivers."""
    blocks = [
        "# Written by the demo; its keys live as long as the demo.\n",
        f'[[endpoint]]\nname = "media"\ninterface = "{net.SFU_DEVICE}"\n'
        f'address = "{net.SFU_ADDRESS}:{ENDPOINT_PORT}"\n',
        _leg("pub-audio", f"{net.PUB_ADDRESS}:{PUB_AUDIO_PORT}", "srtp_in", pub_audio_key),
        _leg("pub-video", f"{net.PUB_ADDRESS}:{PUB_VIDEO_PORT}", "srtp_in", pub_video_key),
        _ingress("pub-audio", PUB_AUDIO_SSRC, 48000, AUDIO_PT),
        _ingress("pub-video", PUB_VIDEO_SSRC, 90000, VIDEO_PT),
    ]
    for rx in rxs:
        if rx.bundled:
            legs = {"audio": rx.name, "video": rx.name}
            blocks.append(_leg(rx.name, f"{rx.address}:{RX_AUDIO_PORT}", "srtp_out", rx.audio_key))
        else:
            legs = {"audio": f"{rx.name}-audio", "video": f"{rx.name}-video"}
            blocks.append(_leg(legs["audio"], f"{rx.address}:{RX_AUDIO_PORT}", "srtp_out", rx.audio_key))
            blocks.append(_leg(legs["video"], f"{rx.address}:{RX_VIDEO_PORT}", "srtp_out", rx.video_key))
        blocks.append(_egress(f"{rx.name}-audio", legs["audio"], rx.audio_ssrc, "pub-audio",
                              (AUDIO_PT, rx.audio_pt)))
        blocks.append(_egress(f"{rx.name}-video", legs["video"], rx.video_ssrc, "pub-video",
                              (VIDEO_PT, rx.video_pt)))
    return "\n".join(blocks)
