//! The running process: sockets, clocks, files and randomness around the node.
