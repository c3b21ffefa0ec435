//! The public listener: HTTPS or HTTP, limits, CORS, client addresses. Never decides what a request means.
