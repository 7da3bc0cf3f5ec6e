"""Where each engine keeps this rank's part of gradients and master weights; the one place that knows ZeRO stages."""
