// The service's configuration for a test. Only what differs from the defaults is written.

import { createHmac } from 'node:crypto';

/** The secret that the tests' tokens are made with. */
export const SECRET = 'secret-of-the-tests-and-of-nothing-else';

/** TOML for `sluice-control`; the strings are quoted as JSON quotes them, which TOML reads alike. */
export function configuration({ address, device, httpsPort, mediaPort, metrics, socket, adminSocket, secretFile,
  blacklist, liveness }) {
  const quote = value => JSON.stringify(value);
  return `[http]
listen = ${quote(`${address}:${httpsPort}`)}
public_url = ${quote(`https://${address}:${httpsPort}`)}

[media]
addresses = [{ interface = ${quote(device)}, address = ${quote(address)} }]
port = ${mediaPort}

[forwarder]
socket = ${quote(socket)}

[admin]
listen = ${quote(metrics)}
socket = ${quote(adminSocket)}

[wire]
token_secret_file = ${quote(secretFile ?? '')}
require_tokens = ${secretFile ? 'true' : 'false'}
blacklist = ${quote(blacklist ?? '')}

[limits]
liveness_timeout = ${liveness ?? 20}

[log]
level = "debug"
`;
}

/** A token as the team's backend makes them: expires after `seconds`, and may start a conference or only join. */
export function token({ seconds = 600, start = true, secret = SECRET, random = 'harness' } = {}) {
  const username = `d=${Math.floor(Date.now() / 1000) + seconds}.v=1.k=0.s=${start ? 1 : 0}.r=${random}`;
  return { username, credential: createHmac('sha512', secret).update(username).digest('base64') };
}
