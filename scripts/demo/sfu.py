"""Runs `sluice-forwarder` in its namespace and talks to it with `sluice`. Owns every command line of the two."""

import json
import os
import subprocess
import time

import net


class SfuError(Exception):
    """The forwarder or the command failed; the text says at what and what it printed."""


class Forwarder:
    """One forwarder process on media0."""

    def __init__(self, binaries, directory, io):
        self._sluice = os.path.join(binaries, "sluice")
        self._forwarder = os.path.join(binaries, "sluice-forwarder")
        self._socket = os.path.join(directory, "table.sock")
        self._state = os.path.join(directory, "state")
        self.log = os.path.join(directory, "forwarder.log")
        self._io = io
        self._process = None

    def command_line(self):
        """How the forwarder is started."""
        return [self._forwarder, "--interface", net.SFU_DEVICE, "--io", self._io,
                "--socket", self._socket, "--state", self._state]

    def start(self, seconds=10):
        """Starts the forwarder and waits until it answers `sluice status`."""
        with open(self.log, "wb") as log:
            self._process = subprocess.Popen(net.inside(net.SFU, *self.command_line()), stdout=log, stderr=log,
                                             stdin=subprocess.DEVNULL, start_new_session=True)
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            if self._process.poll() is not None:
                raise SfuError(f"sluice-forwarder ended with {self._process.returncode}:\n{self.log_tail()}")
            if os.path.exists(self._socket) and self._run("status")[0] == 0:
                return
            time.sleep(0.1)
        raise SfuError(f"sluice-forwarder did not answer within {seconds} s:\n{self.log_tail()}")

    def _run(self, *arguments):
        # The socket is a path, so `sluice` needs no namespace of its own.
        done = subprocess.run([self._sluice, "--socket", self._socket, *arguments], capture_output=True, text=True,
                              check=False, timeout=30)
        return done.returncode, done.stdout, done.stderr

    def apply(self, path):
        """Programs the table; returns what `sluice table apply` printed."""
        code, out, err = self._run("table", "apply", path)
        if code != 0:
            raise SfuError(f"`sluice table apply` ended with {code}:\n{err or out}")
        return out

    def query(self, *arguments):
        """What `sluice --json ARGUMENTS` answers."""
        code, out, err = self._run("--json", *arguments)
        if code != 0:
            raise SfuError(f"`sluice --json {' '.join(arguments)}` ended with {code}: {err or out}")
        return json.loads(out)

    def stream_packets(self):
        """Packets forwarded per stream, as `{"in": {name: packets}, "out": {name: packets}}`."""
        streams = self.query("streams")
        return {
            "in": {row["name"]: row["packets"] for row in streams["ingress"]},
            "out": {row["name"]: row["packets"] for row in streams["egress"]},
        }

    def paths(self):
        """How the publisher's packets came in: the endpoint's I/O mode, packets by AF_XDP and by the kernel socket."""
        endpoints = self._rows("status", "endpoints")
        legs = [row for row in self._rows("legs", "legs") if row["leg"].startswith("pub-")]
        return {"mode": endpoints[0]["mode"], "refused": endpoints[0].get("refused", []),
                "fast": sum(row["fast"] for row in legs), "slow": sum(row["slow"] for row in legs)}

    def _rows(self, command, field):
        answer = self.query(command)
        return answer if isinstance(answer, list) else answer[field]

    def running(self):
        """Whether the process lives."""
        return self._process is not None and self._process.poll() is None

    def stop(self):
        """Ends the forwarder with SIGTERM; returns its exit code, or None if it had to be killed."""
        if self._process is None:
            return 0
        if self._process.poll() is None:
            self._process.terminate()
        try:
            return self._process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
            return None

    def log_tail(self, lines=15):
        """The last lines of its log."""
        with open(self.log, encoding="utf-8", errors="replace") as log:
            return "".join(log.readlines()[-lines:]).rstrip()
