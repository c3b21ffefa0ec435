"""Tests of the judge: a demo that cannot fail proves nothing. `python3 -m unittest discover -s scripts/demo`."""

import array
import math
import random
import struct
import unittest

import check
import plan

GOOD_UDP = {"InDatagrams": 100, "InErrors": 0, "InCsumErrors": 0}


def hashes(count):
    """`count` different hashes."""
    return [f"{number:032x}" for number in range(count)]


def sine(frequency, seconds, amplitude=8000, noise=0.0, seed=1):
    """Samples of a tone with noise."""
    draw = random.Random(seed)
    return array.array("h", [
        int(amplitude * math.sin(2 * math.pi * frequency * n / check.SAMPLE_RATE) + draw.gauss(0, noise))
        for n in range(int(seconds * check.SAMPLE_RATE))])


def wav(samples, size=None, channels=1):
    """A WAV file as ffmpeg and GStreamer write it, with a chunk before the samples."""
    data = samples.tobytes()
    head = struct.pack("<4sIHHIIHH", b"fmt ", 16, 1, channels, 48000, 96000, 2, 16)
    extra = b"LIST" + struct.pack("<I", 3) + b"abc\0"
    body = b"data" + struct.pack("<I", len(data) if size is None else size) + data
    return b"RIFF" + struct.pack("<I", 0) + b"WAVE" + head + extra + body


class Frames(unittest.TestCase):
    """Comparison of decoded frames."""

    def test_all_equal(self):
        frames = check.compare_frames(hashes(90), hashes(90), 30)
        self.assertEqual(frames, check.Frames(90, 90, 90, 0, True))

    def test_late_start_at_a_key_frame(self):
        frames = check.compare_frames(hashes(90), hashes(90)[30:], 30)
        self.assertEqual(frames, check.Frames(90, 60, 60, 0, True))

    def test_late_start_elsewhere(self):
        self.assertFalse(check.compare_frames(hashes(90), hashes(90)[31:], 30).starts_at_key)

    def test_damaged_frame(self):
        received = hashes(90)
        received[40] = "f" * 32
        self.assertEqual(check.compare_frames(hashes(90), received, 30).wrong, 1)

    def test_repeated_and_reordered_frames(self):
        repeated = hashes(90)[:50] + hashes(90)[49:]
        self.assertEqual(check.compare_frames(hashes(90), repeated, 30).wrong, 1)
        swapped = hashes(90)
        swapped[10], swapped[11] = swapped[11], swapped[10]
        self.assertEqual(check.compare_frames(hashes(90), swapped, 30).wrong, 1)

    def test_nothing_received(self):
        self.assertEqual(check.compare_frames(hashes(90), [], 30), check.Frames(90, 0, 0, 0, False))

    def test_a_still_picture_is_refused(self):
        with self.assertRaises(ValueError):
            check.compare_frames(["a", "a"], ["a"], 30)

    def test_formats(self):
        md5 = "d41d8cd98f00b204e9800998ecf8427e"
        self.assertEqual(check.read_framemd5(f"#format: frame\n0,  0,  0,  1, 345600, {md5}\n"), [md5])
        self.assertEqual(check.read_checksumsink(f"0:00:00.147628386 {md5}\nWARNING: x\n"), [md5])


class Audio(unittest.TestCase):
    """Tone and WAV."""

    def test_pure_tone(self):
        tone = check.measure_tone(sine(440, 1), 440)
        self.assertGreater(tone.decibel, 60)
        self.assertAlmostEqual(tone.tone_seconds, 1.0)

    def test_known_noise_gives_the_known_ratio(self):
        # A sine of amplitude 8000 has power 3.2e7; noise of deviation 800 has 6.4e5: 17 dB.
        tone = check.measure_tone(sine(440, 2, noise=800), 440)
        self.assertAlmostEqual(tone.decibel, 17, delta=0.7)
        self.assertEqual(tone.tone_seconds, 0)

    def test_another_tone_noise_and_silence(self):
        self.assertLess(check.measure_tone(sine(880, 1), 440).decibel, -40)
        self.assertLess(check.measure_tone(sine(440, 1, amplitude=0, noise=3000), 440).decibel, -10)
        self.assertEqual(check.measure_tone(sine(440, 1, amplitude=0), 440).decibel, -200)
        self.assertEqual(check.measure_tone([], 440), check.Tone(0, 0, -200))

    def test_gap(self):
        samples = sine(440, 1)
        samples[9600:19200] = array.array("h", [0] * 9600)
        self.assertAlmostEqual(check.measure_tone(samples, 440).tone_seconds, 0.8)

    def test_wav_sizes_are_not_trusted(self):
        samples = sine(440, 0.1)
        for size in (None, 0, 0xFFFFFFFF):
            self.assertEqual(check.read_wav(wav(samples, size)), samples)

    def test_bad_wav(self):
        for data in (b"", b"RIFF", wav(sine(440, 0.1), channels=2), wav(array.array("h"))[:12]):
            with self.assertRaises(ValueError):
                check.read_wav(data)


class Verdict(unittest.TestCase):
    """The rules of a pass, each broken once."""

    GOOD = {
        "frames": check.Frames(100, 100, 100, 0, True), "tone": check.Tone(4.0, 3.9, 49.0), "seconds": 4,
        "datagrams": GOOD_UDP, "counters": {"audio": 40, "video": 60},
    }

    def test_good(self):
        self.assertEqual(check.judge(**self.GOOD), [])
        self.assertEqual(check.judge(**self.GOOD | {"frames": check.Frames(100, 90, 90, 0, True)}), [])

    def test_each_rule(self):
        broken = [
            {"frames": check.Frames(100, 89, 89, 0, True)},
            {"frames": check.Frames(100, 100, 99, 1, True)},
            {"frames": check.Frames(100, 95, 95, 0, False)},
            {"tone": check.Tone(4.0, 3.5, 49.0)},
            {"tone": check.Tone(4.0, 3.9, 19.0)},
            {"datagrams": GOOD_UDP | {"InCsumErrors": 1}},
            {"datagrams": GOOD_UDP | {"InErrors": 1}},
            {"datagrams": GOOD_UDP | {"InDatagrams": 99}},
            {"counters": {"audio": None, "video": 60}},
            {"counters": {"audio": 0, "video": 60}},
        ]
        for change in broken:
            with self.subTest(change):
                self.assertEqual(len(check.judge(**self.GOOD | change)), 1)


class Path(unittest.TestCase):
    """The way packets took."""

    def test_rules(self):
        fast = {"mode": "xdp_copy", "refused": [], "fast": 100, "slow": 0}
        slow = {"mode": "udp", "refused": [{"mode": "xdp_copy", "reason": "EPERM"}], "fast": 0, "slow": 100}
        self.assertEqual(check.judge_path("xdp", 100, 100, fast), [])
        self.assertEqual(check.judge_path("udp", 100, 100, slow), [])
        self.assertEqual(len(check.judge_path("xdp", 100, 99, fast)), 1)
        self.assertIn("EPERM", check.judge_path("xdp", 100, 100, slow)[0])
        self.assertEqual(len(check.judge_path("udp", 100, 100, fast)), 1)
        self.assertEqual(len(check.judge_path("xdp", 100, 100, fast | {"fast": 80, "slow": 20})), 1)


class Plan(unittest.TestCase):
    """The table file."""

    def test_every_receiver_has_keys_and_streams_of_its_own(self):
        rxs = plan.receivers(200)
        keys = [key for rx in rxs for key in {rx.audio_key, rx.video_key}]
        self.assertEqual(len(keys), len(set(keys)))
        ssrcs = [ssrc for rx in rxs for ssrc in (rx.audio_ssrc, rx.video_ssrc)]
        self.assertEqual(len(ssrcs), len(set(ssrcs)))
        self.assertEqual(len({rx.address for rx in rxs}), 200)
        self.assertEqual({rx.profile for rx in rxs}, set(plan.KEY_LENGTHS))

    def test_table_is_toml_with_one_egress_per_stream(self):
        import tomllib
        rxs = plan.receivers(3)
        key = plan.Key.new("aes128-cm-sha1-80")
        table = tomllib.loads(plan.table(key, plan.Key.new("aes128-cm-sha1-80"), rxs))
        self.assertEqual(len(table["leg"]), 2 + 2 + 1 + 1)
        self.assertEqual(len(table["egress"]), 6)
        self.assertEqual(table["leg"][0]["srtp_in"], {"profile": "aes128-cm-sha1-80", "key": key.base64()})
        self.assertEqual(table["egress"][0]["payload_types"], {"111": rxs[0].audio_pt})
        legs = {leg["name"] for leg in table["leg"]}
        self.assertTrue(all(egress["leg"] in legs for egress in table["egress"]))
        self.assertNotIn(key.base64(), repr(key))


if __name__ == "__main__":
    unittest.main()
