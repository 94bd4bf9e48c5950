//! Several upstreams, and how they fail.
