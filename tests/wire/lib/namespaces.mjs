// The lab's network: namespaces around one bridge. Owns their names, addresses and removal; knows nothing of media.
//
//     sluice-wire-c1 --+
//     sluice-wire-cN --+-- br0 (in sluice-wire-net) -- media0 (in sluice-wire-m)
//
// The media node has one interface and one address, as on a real one; every client has a namespace of its own, because
// a browser offers every address it sees.

import { spawnSync } from 'node:child_process';

// Another prefix lets a second run go on beside a first one.
const PREFIX = process.env.SLUICE_WIRE_PREFIX ?? 'sluice-wire';
export const NET = `${PREFIX}-net`;
export const NODE = `${PREFIX}-m`;
export const NODE_DEVICE = 'media0';
export const NODE_ADDRESS = '10.78.0.1';
const CLIENT = `${PREFIX}-c`;

export const clientNamespace = number => `${CLIENT}${number}`;
export const clientAddress = number => `10.78.0.${20 + number}`;

// Without these a frame reaches XDP with its UDP checksum not filled in, or as one large frame of several packets.
const OFFLOADS_OFF = 'rx off tx off sg off tso off gso off gro off'.split(' ');

/** Runs a command to its end and returns what it printed; throws with its own words if it failed. */
export function run(command, ...args) {
  const done = spawnSync(command, args, { encoding: 'utf8' });
  if (done.error) throw done.error;
  if (done.status !== 0) {
    throw new Error(`\`${[command, ...args].join(' ')}\` failed: ${(done.stderr || done.stdout).trim() || done.status}`);
  }
  return done.stdout;
}

/** The command line that runs a command inside a namespace. */
export const inside = (namespace, ...command) => ['ip', 'netns', 'exec', namespace, ...command];
export const runInside = (namespace, ...command) => run(...inside(namespace, ...command));

function link(namespace, device, address, port) {
  // One queue each way: one AF_XDP socket, one worker.
  const one = ['numrxqueues', '1', 'numtxqueues', '1'];
  run('ip', 'link', 'add', device, 'netns', namespace, ...one, 'type', 'veth', 'peer', 'name', port, 'netns', NET, ...one);
  run('ip', '-n', NET, 'link', 'set', port, 'master', 'br0', 'up');
  run('ip', '-n', namespace, 'addr', 'add', `${address}/24`, 'dev', device);
  run('ip', '-n', namespace, 'link', 'set', 'lo', 'up');
  run('ip', '-n', namespace, 'link', 'set', device, 'up');
  runInside(namespace, 'ethtool', '-K', device, ...OFFLOADS_OFF);
  runInside(NET, 'ethtool', '-K', port, ...OFFLOADS_OFF);
}

function add(namespace) {
  run('ip', 'netns', 'add', namespace);
  runInside(namespace, 'sh', '-c', '! test -d /proc/sys/net/ipv6 || ' +
    'for c in all default; do echo 1 > /proc/sys/net/ipv6/conf/$c/disable_ipv6; done');
}

/** The bridge and the media node. */
export function createNode() {
  add(NET);
  add(NODE);
  run('ip', '-n', NET, 'link', 'add', 'br0', 'type', 'bridge', 'stp_state', '0', 'mcast_snooping', '0');
  run('ip', '-n', NET, 'link', 'set', 'br0', 'up');
  link(NODE, NODE_DEVICE, NODE_ADDRESS, 'p-node');
}

/** The namespace of client `number`, counted from 1. */
export function createClient(number) {
  add(clientNamespace(number));
  link(clientNamespace(number), 'eth0', clientAddress(number), `p-c${number}`);
}

const ours = name => name === NET || name === NODE || new RegExp(`^${CLIENT}\\d+$`).test(name);

export function leftovers() {
  return run('ip', 'netns', 'list').split('\n').map(line => line.split(' ')[0]).filter(ours);
}

const pids = namespace => spawnSync('ip', ['netns', 'pids', namespace], { encoding: 'utf8' }).stdout
  .split('\n').filter(Boolean).map(Number);

function end(namespace, signal) {
  for (const pid of pids(namespace)) {
    try {
      process.kill(pid, signal);
    } catch {
      // It has ended since.
    }
  }
}

/** Ends what still runs inside the lab's namespaces and removes them. Returns those that stayed. */
export function removeAll() {
  const present = leftovers();
  for (const namespace of present) {
    end(namespace, 'SIGKILL');
    for (let tries = 0; tries < 40 && pids(namespace).length > 0; tries++) spawnSync('sleep', ['0.05']);
    spawnSync('ip', ['netns', 'del', namespace]);
  }
  return leftovers();
}
