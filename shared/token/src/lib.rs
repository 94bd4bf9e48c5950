//! Who may watch: playback tokens (JWT), signed session paths, and what an origin tells its edges about both.
//!
//! Invariants: no clock, socket, task, lock or log (A3): time and randomness come in as arguments. Deliberately absent:
//! remembering verdicts and enforcing revocations, which are the edge's.
