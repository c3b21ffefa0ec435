"""ffmpeg and GStreamer command lines: the pattern, the publisher and the receivers. Owns what each peer is told;
judges nothing (check.py does)."""

import os
import subprocess

import net
import plan

FRAME_RATE = 30
KEY_FRAME_EVERY = 30  # frames
TONE_HZ = 440
FFMPEG = ["ffmpeg", "-hide_banner", "-nostdin", "-loglevel", "warning"]
# ffmpeg's own name for the profile (RFC 4568 section 6.2).
FFMPEG_SUITES = {"aes128-cm-sha1-80": "AES_CM_128_HMAC_SHA1_80"}
GST_CIPHERS = {"aes128-gcm": "aes-128-gcm", "aes256-gcm": "aes-256-gcm"}


class MediaError(Exception):
    """ffmpeg or GStreamer failed; the text says at what."""


def encode_pattern(directory, seconds):
    """Encodes `seconds` of moving test pattern to VP8 and decodes it again: every receiver must decode exactly that.

    Returns the paths of the encoded file and of its per-frame hashes. VP8 is lossy, but its decoding is exact
    (RFC 6386), so the publisher's own decode is the truth for all others.
    """
    encoded, hashes = os.path.join(directory, "pattern.ivf"), os.path.join(directory, "pattern.framemd5")
    # No alternate reference frames: one frame in, one frame shown.
    _finish(FFMPEG + ["-y", "-f", "lavfi", "-i", f"testsrc2=size=640x360:rate={FRAME_RATE}", "-t", str(seconds),
                      "-pix_fmt", "yuv420p", "-c:v", "libvpx", "-b:v", "1M", "-deadline", "realtime", "-cpu-used", "8",
                      "-auto-alt-ref", "0", "-lag-in-frames", "0", "-error-resilient", "1",
                      "-g", str(KEY_FRAME_EVERY), "-keyint_min", str(KEY_FRAME_EVERY), encoded])
    hash_frames(encoded, hashes)
    return encoded, hashes


def hash_frames(encoded, hashes):
    """Decodes a video file and writes one hash per frame (ffmpeg's framemd5 format)."""
    _finish(FFMPEG + ["-y", "-i", encoded, "-map", "0:v", "-fps_mode", "passthrough", "-pix_fmt", "yuv420p",
                      "-f", "framemd5", hashes])


def _finish(command):
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise MediaError(f"`{' '.join(command)}` failed: {done.stderr.strip()}")


def publisher(encoded, seconds, audio_key, video_key):
    """The publisher: the encoded pattern and a live Opus tone, in real time, each from its own source port."""

    def rtp(port, ssrc, payload_type, key):
        return ["-f", "rtp", "-rtpflags", "skip_rtcp", "-ssrc", str(ssrc), "-payload_type", str(payload_type),
                "-srtp_out_suite", FFMPEG_SUITES[key.profile], "-srtp_out_params", key.base64(),
                f"srtp://{net.SFU_ADDRESS}:{plan.ENDPOINT_PORT}?localrtpport={port}&pkt_size=1200"]

    return FFMPEG + [
        "-re", "-i", encoded,
        "-re", "-f", "lavfi", "-i", f"sine=frequency={TONE_HZ}:sample_rate=48000:duration={seconds}",
        "-map", "0:v", "-c:v", "copy",
        *rtp(plan.PUB_VIDEO_PORT, plan.PUB_VIDEO_SSRC, plan.VIDEO_PT, video_key),
        "-map", "1:a", "-c:a", "libopus", "-b:a", "64k",
        *rtp(plan.PUB_AUDIO_PORT, plan.PUB_AUDIO_SSRC, plan.AUDIO_PT, audio_key),
    ]


def receiver(rx, directory):
    """The receiver's command line. It records `rx.wav`, and `rx.ivf` or hashes on its standard output (`rx.out`)."""
    return _ffmpeg_receiver(rx, directory) if rx.peer == "ffmpeg" else _gstreamer_receiver(rx, directory)


def _ffmpeg_receiver(rx, directory):
    sdp = os.path.join(directory, f"{rx.name}.sdp")
    suite = FFMPEG_SUITES[rx.profile]
    with open(os.open(sdp, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w", encoding="ascii") as file:
        file.write(
            f"v=0\no=- 0 0 IN IP4 {net.SFU_ADDRESS}\ns=Sluice demo\nc=IN IP4 {net.SFU_ADDRESS}\nt=0 0\n"
            f"m=audio {plan.RX_AUDIO_PORT} RTP/SAVP {rx.audio_pt}\na=rtpmap:{rx.audio_pt} opus/48000/2\n"
            f"a=crypto:1 {suite} inline:{rx.audio_key.base64()}\n"
            f"m=video {plan.RX_VIDEO_PORT} RTP/SAVP {rx.video_pt}\na=rtpmap:{rx.video_pt} VP8/90000\n"
            f"a=crypto:1 {suite} inline:{rx.video_key.base64()}\n")
    # A live ffmpeg is stopped by signals and then loses the frame it holds back and what it did not yet write: so
    # video is recorded as received and decoded afterwards, and everything is written at once.
    return FFMPEG + ["-y", "-protocol_whitelist", "file,udp,rtp,srtp", "-i", sdp,
                     "-map", "0:v", "-c:v", "copy", "-flush_packets", "1", os.path.join(directory, f"{rx.name}.ivf"),
                     "-map", "0:a", "-c:a", "pcm_s16le", "-ac", "1", "-flush_packets", "1",
                     os.path.join(directory, f"{rx.name}.wav")]


def _gstreamer_receiver(rx, directory):
    def branch(ssrc, payload_type, key, rtp):
        # srtpdec takes its key from the caps of its input, one SSRC each; the null authentication is GCM's own tag.
        caps = (f"application/x-srtp,ssrc=(uint){ssrc},payload=(int){payload_type},{rtp},"
                f"srtp-key=(buffer){key.hex()},srtp-cipher={GST_CIPHERS[key.profile]},srtp-auth=null,"
                f"srtcp-cipher={GST_CIPHERS[key.profile]},srtcp-auth=null,roc=(uint)0")
        return [f"d.src_{ssrc}", "!", "capssetter", f"caps={caps}", "join=false", "replace=true", "!", "srtpdec"]

    return ["gst-launch-1.0", "-q", "-e",
            "udpsrc", f"port={plan.RX_AUDIO_PORT}", "buffer-size=4000000", "caps=application/x-rtp",
            "!", "rtpssrcdemux", "name=d",
            *branch(rx.video_ssrc, rx.video_pt, rx.video_key,
                    "media=video,clock-rate=(int)90000,encoding-name=VP8"),
            "!", "rtpvp8depay", "!", "vp8dec", "!", "video/x-raw,format=I420", "!", "queue",
            "!", "checksumsink", "hash=md5",
            *branch(rx.audio_ssrc, rx.audio_pt, rx.audio_key,
                    "media=audio,clock-rate=(int)48000,encoding-name=OPUS"),
            "!", "rtpopusdepay", "!", "opusdec", "plc=false", "!", "audioconvert",
            "!", "audio/x-raw,format=S16LE,channels=1", "!", "queue",
            "!", "wavenc", "!", "filesink", f"location={os.path.join(directory, rx.name + '.wav')}"]
