// What the browser says about the call: a flat summary of its statistics, and the length of every freeze.

const before = new Map();
let longest = { seconds: 0, at: 0, ssrc: 0 };
let sampled = 0;

async function reports(avs, conversation) {
  return (await avs.getStats(conversation)).flatMap(one => [...one.stats.values()]);
}

/**
 * Looks at the freezes since the last sample. The browser only sums them up: of several between two samples, the sum
 * bounds the longest from above.
 */
export async function sample(avs, conversation) {
  for (const row of await reports(avs, conversation)) {
    if (row.type !== 'inbound-rtp' || row.kind !== 'video') continue;
    const total = row.totalFreezesDuration ?? 0;
    const grown = total - (before.get(row.id) ?? 0);
    before.set(row.id, total);
    if (grown > longest.seconds) longest = { seconds: grown, at: Date.now(), ssrc: row.ssrc };
  }
  sampled += 1;
}

/** The longest freeze since the last call with `reset`, in seconds, and how often was looked. */
export function freezes(reset = false) {
  const result = { ...longest, sampled };
  if (reset) {
    longest = { seconds: 0, at: 0, ssrc: 0 };
    sampled = 0;
  }
  return result;
}

const pick = (row, names) => Object.fromEntries(names.map(name => [name, row[name]]));

const INBOUND = ['ssrc', 'mid', 'kind', 'trackIdentifier', 'packetsReceived', 'packetsLost', 'bytesReceived', 'jitter',
  'framesReceived', 'framesDecoded', 'keyFramesDecoded', 'framesDropped', 'freezeCount', 'totalFreezesDuration',
  'frameWidth', 'frameHeight', 'nackCount', 'pliCount', 'firCount', 'retransmittedPacketsReceived',
  'totalAudioEnergy', 'totalSamplesReceived', 'concealedSamples', 'jitterBufferEmittedCount', 'audioLevel',
  'estimatedPlayoutTimestamp'];
const OUTBOUND = ['ssrc', 'mid', 'rid', 'kind', 'active', 'packetsSent', 'bytesSent', 'framesSent', 'framesEncoded',
  'keyFramesEncoded', 'frameWidth', 'frameHeight', 'targetBitrate', 'nackCount', 'pliCount', 'firCount',
  'retransmittedPacketsSent', 'qualityLimitationReason'];

/** One object with what the tests assert: streams in and out, the chosen pair and the ciphers. */
export async function summary(avs, conversation) {
  const rows = await reports(avs, conversation);
  const byId = new Map(rows.map(row => [row.id, row]));
  const address = id => {
    const row = byId.get(id);
    return row && { address: row.address, port: row.port, type: row.candidateType };
  };
  return {
    inbound: rows.filter(row => row.type === 'inbound-rtp').map(row => pick(row, INBOUND)),
    outbound: rows.filter(row => row.type === 'outbound-rtp').map(row => pick(row, OUTBOUND)),
    remoteInbound: rows.filter(row => row.type === 'remote-inbound-rtp')
      .map(row => pick(row, ['ssrc', 'kind', 'packetsLost', 'fractionLost', 'roundTripTime'])),
    transports: rows.filter(row => row.type === 'transport').map(row => {
      const pair = byId.get(row.selectedCandidatePairId);
      return {
        ...pick(row, ['dtlsState', 'iceState', 'tlsVersion', 'dtlsCipher', 'srtpCipher', 'dtlsRole',
          'selectedCandidatePairChanges', 'packetsSent', 'packetsReceived']),
        local: pair && address(pair.localCandidateId),
        remote: pair && address(pair.remoteCandidateId),
        availableOutgoingBitrate: pair?.availableOutgoingBitrate,
        roundTripTime: pair?.currentRoundTripTime,
      };
    }),
  };
}
