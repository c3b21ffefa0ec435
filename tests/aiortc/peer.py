"""One aiortc participant of a conference: signals as a Wire client does, publishes a tone and a grey picture, receives what
is forwarded to it, and tells what it decoded as one JSON object on standard output. Judges nothing."""

import argparse
import array
import asyncio
import fractions
import json
import math
import ssl
import sys
import time
import urllib.request

import av
from aiortc import MediaStreamTrack, RTCBundlePolicy, RTCConfiguration, RTCPeerConnection, RTCSessionDescription
from aiortc.mediastreams import AudioStreamTrack, MediaStreamError, VideoStreamTrack

RATE = 48_000
WIDTH, HEIGHT = 320, 180
HIGH = 2


class Tone(AudioStreamTrack):
    """A sine, 20 ms a frame, at the pace of the clock."""

    def __init__(self, hertz):
        super().__init__()
        self._hertz = hertz
        self._sent = 0
        self._start = None

    async def recv(self):
        count = RATE // 50
        if self._start is None:
            self._start = time.monotonic()
        await asyncio.sleep(max(0.0, self._start + self._sent / RATE - time.monotonic()))
        wave = (int(8000 * math.sin(2 * math.pi * self._hertz * (self._sent + n) / RATE)) for n in range(count))
        frame = av.AudioFrame(format="s16", layout="mono", samples=count)
        frame.planes[0].update(array.array("h", wave).tobytes())
        frame.sample_rate, frame.pts, frame.time_base = RATE, self._sent, fractions.Fraction(1, RATE)
        self._sent += count
        return frame


class Grey(VideoStreamTrack):
    """A picture of one shade of grey with a stripe that moves, so that every frame differs."""

    def __init__(self, shade):
        super().__init__()
        self._shade = shade
        self._count = 0

    async def recv(self):
        pts, base = await self.next_timestamp()
        frame = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
        for plane, value in zip(frame.planes, (self._shade, 128, 128)):
            rows = bytearray([value]) * (plane.line_size * plane.height)
            if value == self._shade:
                start = (self._count % plane.height) * plane.line_size
                rows[start:start + plane.line_size] = bytes(plane.line_size)
            plane.update(bytes(rows))
        self._count += 1
        frame.pts, frame.time_base = pts, base
        return frame


class Received:
    """What one forwarded track brought."""

    def __init__(self, track: MediaStreamTrack, mid):
        self.kind = track.kind
        self.mid = mid
        self.frames = 0
        self.shade = None
        self.size = None
        self.loudest = 0
        self.task = asyncio.ensure_future(self._take(track))

    async def _take(self, track):
        while True:
            try:
                frame = await track.recv()
            except MediaStreamError:
                return
            self.frames += 1
            if self.kind == "video":
                self.size = [frame.width, frame.height]
                luma = bytes(frame.planes[0])
                self.shade = luma[len(luma) // 2 + frame.planes[0].line_size // 2]
            else:
                samples = array.array("h", bytes(frame.planes[0]))
                self.loudest = max(self.loudest, max(map(abs, samples), default=0))

    def told(self):
        """The part of the result about this track."""
        return {"kind": self.kind, "mid": self.mid, "frames": self.frames, "shade": self.shade, "size": self.size,
                "loudest": self.loudest}


class Peer:
    """The participant."""

    def __init__(self, args):
        self._args = args
        # With its default policy aiortc 1.16 gives every video after the first a transport that it throws away.
        self._connection = RTCPeerConnection(RTCConfiguration(bundlePolicy=RTCBundlePolicy.MAX_BUNDLE))
        self._received = []
        self._channel = None
        self._props = {"videosend": "true", "screensend": "false", "audiocbr": "true", "muted": "false"}
        self.result = {"user": args.user, "statuses": [], "parts": [], "pongs": 0, "hangup": False, "channel": None}

    def _envelope(self, kind, resp, **more):
        return {"version": "3.0", "type": kind, "sessid": self._args.conversation, "src_userid": self._args.user,
                "src_clientid": "_", "dest_userid": "SFT", "dest_clientid": "_", "resp": resp, **more}

    async def _post(self, message):
        request = urllib.request.Request(f"{self._args.url}/sft/{self._args.conversation}",
                                         data=json.dumps(message).encode(), method="POST",
                                         headers={"Content-Type": "application/json"})
        # The certificate was made for this run.
        context = ssl.create_default_context()
        context.check_hostname, context.verify_mode = False, ssl.CERT_NONE

        def run():
            with urllib.request.urlopen(request, timeout=10, context=context) as answer:
                return answer.status, json.load(answer)

        status, answer = await asyncio.get_running_loop().run_in_executor(None, run)
        self.result["statuses"].append(status)
        return answer

    async def join(self):
        """CONFCONN, the offer, our answer."""
        setup = await self._post(self._envelope(
            "CONFCONN", False, ice_servers=[], update=False, tool="aiortc", toolver="9.0.0", env=0, status=0,
            selective_audio=True, selective_video=True, vstreams=4))
        if setup["type"] != "SETUP":
            raise RuntimeError(f"refused: {setup}")
        connection = self._connection
        connection.on("track", self._track)
        connection.on("datachannel", self._datachannel)
        connection.addTrack(Tone(self._args.hertz))
        connection.addTrack(Grey(self._args.shade))
        self.result["offer"] = setup["sdp"]
        await connection.setRemoteDescription(RTCSessionDescription(sdp=setup["sdp"], type="offer"))
        await connection.setLocalDescription(await connection.createAnswer())
        answer = connection.localDescription.sdp
        self.result["answer"] = answer
        conf = await self._post(self._envelope("SETUP", True, sdp=answer, props=self._props))
        if conf["type"] != "CONFCONN" or conf.get("status", 0) != 0:
            raise RuntimeError(f"the answer was refused: {conf}")

    def _track(self, track):
        mid = next((one.mid for one in self._connection.getTransceivers() if one.receiver.track is track), None)
        self._received.append(Received(track, mid))

    def _datachannel(self, channel):
        self.result["channel"] = channel.label
        self._channel = channel
        channel.on("message", self._message)

    def _send(self, kind, resp, **more):
        self._channel.send(json.dumps(self._envelope(kind, resp, **more)))

    def _message(self, text):
        message = json.loads(text)
        kind, resp = message["type"], message["resp"]
        if kind == "CONFPART" and not resp:
            self._parts(message)
        elif kind == "PING" and resp:
            self.result["pongs"] += 1
        elif kind == "HANGUP":
            self.result["hangup"] = True

    def _parts(self, message):
        people = message["participants"]
        self.result["parts"].append([one["userid"] for one in people])
        others = [one for one in people if one["userid"] != self._args.user]
        self._send("PROPSYNC", False, props=self._props)
        self._send("CONFPART", True, should_start=False, timestamp=message["timestamp"], seqno=message["seqno"],
                   entropy=message["entropy"], participants=[{**one, "authorized": True} for one in others])
        if others:
            self._send("CONFSTREAMS", False, mode="list",
                       streams=[{"userid": one["userid"], "quality": HIGH} for one in others])

    async def stay(self):
        """Stays in the call for the time asked for, with a PING every 5 s."""
        end = time.monotonic() + self._args.seconds
        ping = time.monotonic()
        while time.monotonic() < end:
            if self._channel and time.monotonic() >= ping:
                self._send("PING", False)
                ping = time.monotonic() + 5
            await asyncio.sleep(0.1)

    async def leave(self):
        """HANGUP, and the end."""
        # Of a bundle only one is in use.
        transports = {one.receiver.transport for one in self._connection.getTransceivers()}
        self.result["profiles"] = [one._ssl.get_selected_srtp_profile().decode()  # pylint: disable=protected-access
                                   for one in transports if one.state == "connected"]
        self.result["state"] = self._connection.connectionState
        self.result["received"] = [one.told() for one in self._received]
        if self._channel:
            self._send("HANGUP", False)
            for _ in range(20):
                if self.result["hangup"]:
                    break
                await asyncio.sleep(0.1)
        await self._connection.close()


async def main():
    """Entry point; an error is told in the result."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--url", required=True)
    parser.add_argument("--conversation", required=True, help="32 hex digits, as a client hashes it")
    parser.add_argument("--user", required=True)
    parser.add_argument("--seconds", type=float, default=15)
    parser.add_argument("--shade", type=int, default=128)
    parser.add_argument("--hertz", type=int, default=440)
    peer = Peer(parser.parse_args())
    try:
        await peer.join()
        await peer.stay()
        await peer.leave()
    except Exception as error:  # pylint: disable=broad-exception-caught
        peer.result["error"] = f"{type(error).__name__}: {error}"
    print(json.dumps(peer.result))
    return 1 if "error" in peer.result else 0


if __name__ == "__main__":
    sys.exit(asyncio.run(main()))
