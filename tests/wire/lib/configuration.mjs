// The service's configuration for a test, as text.

const text = value => JSON.stringify(value);

/** TOML for `sluice-control`. */
export function configuration(options) {
  return `# placeholder of the harness: written per run\n`;
}
