//! The control plane's configuration: one TOML file with every default written out. Never reads anything else.
