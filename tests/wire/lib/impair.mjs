// What the network does to packets: loss on the bridge, and an address translator in front of a client whose mapping
// can change. Owns the nftables rules; both work on the kernel's side of the veths, outside of what AF_XDP sees.

import { spawnSync } from 'node:child_process';
import { NET, NODE_ADDRESS, clientAddress, clientNamespace, runInside } from './namespaces.mjs';

const PERIOD = 499;

/** Which of every PERIOD packets are lost: spread by a fixed generator, so that every run loses the same ones. */
function lostOf(percent) {
  const lost = new Set();
  let state = 0x5eed;
  while (lost.size < Math.round((PERIOD * percent) / 100)) {
    state = (Math.imul(state, 1103515245) + 12345) >>> 0;
    lost.add((state >>> 8) % PERIOD);
  }
  return [...lost].sort((a, b) => a - b);
}

/** Loses `percent` of the UDP packets between the node and the clients, each way. 0 ends it. */
export function lose(percent) {
  runInside(NET, 'sh', '-c', 'nft delete table bridge impair 2>/dev/null || true');
  if (percent === 0) return;
  const rule = way => `${way} ip protocol udp numgen inc mod ${PERIOD} { ${lostOf(percent).join(', ')} } counter drop`;
  runInside(NET, 'nft', `add table bridge impair; add chain bridge impair forward { type filter hook forward priority 0; }`);
  runInside(NET, 'nft', `add rule bridge impair forward ${rule('iifname "p-node" ether type ip')}`);
  runInside(NET, 'nft', `add rule bridge impair forward ${rule('oifname "p-node" ether type ip')}`);
}

/** Packets lost so far, to the clients and to the node. */
export function lost() {
  const rules = runInside(NET, 'nft', 'list', 'chain', 'bridge', 'impair', 'forward');
  return [...rules.matchAll(/counter packets (\d+)/g)].map(match => Number(match[1]));
}

/** Cuts a client off (or lets it back): nothing of it passes, nobody is told. */
export function cut(number, off = true) {
  runInside(NET, 'sh', '-c', `nft delete table bridge cut${number} 2>/dev/null || true`);
  if (!off) return;
  runInside(NET, 'nft', `add table bridge cut${number}; ` +
    `add chain bridge cut${number} forward { type filter hook forward priority 0; }`);
  runInside(NET, 'nft', `add rule bridge cut${number} forward iifname "p-c${number}" drop`);
  runInside(NET, 'nft', `add rule bridge cut${number} forward oifname "p-c${number}" drop`);
}

/**
 * Puts a translator in front of client `number`: to the node its media comes from `port`. Called again with another port
 * it forgets the mapping, as a home router does that restarts. It lets in what answers a packet of the client, no more.
 */
export function translate(number, port) {
  const namespace = clientNamespace(number);
  runInside(namespace, 'sh', '-c', 'nft delete table ip translator 2>/dev/null || true');
  runInside(namespace, 'nft', [
    'add table ip translator',
    'add chain ip translator in { type filter hook input priority 0; }',
    'add chain ip translator out { type nat hook postrouting priority 100; }',
    'add chain ip translator quiet { type filter hook output priority 0; }',
    `add rule ip translator in ip saddr ${NODE_ADDRESS} meta l4proto udp ct state new drop`,
    'add rule ip translator quiet icmp type destination-unreachable drop',
    `add rule ip translator out ip daddr ${NODE_ADDRESS} meta l4proto udp snat to ${clientAddress(number)}:${port}`,
  ].join('; '));
  // It ends with 1 where there was nothing to forget.
  const done = spawnSync('ip', ['netns', 'exec', namespace, 'conntrack', '-D', '-p', 'udp', '-d', NODE_ADDRESS],
    { encoding: 'utf8' });
  if (!/flow entries have been deleted/.test(done.stderr ?? '')) throw new Error(`conntrack failed: ${done.stderr}`);
}
