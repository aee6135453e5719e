"""Live hosts over the network: WebRTC for browsers, a WebSocket for programs, a page, and plugs to other programs."""
