# The same commands that scripts/ and .ci/run call.

# What is quick: formatting, lints, documentation, licences.
check:
    ./scripts/test --only fmt --only clippy --only docs --only deny

# Everything but the end-to-end tests.
test:
    ./scripts/test --no-e2e

# A real encoder in, a real browser out.
e2e:
    ./scripts/test --only e2e

# The figures: glass to player, a forward channel through an edge, the edge by itself and under attack, playlists, and the ladder's
# CPU against ffmpeg's.
bench minutes="5":
    npm --prefix e2e ci
    node e2e/latency.mjs --minutes {{minutes}}
    ./scripts/bench
    ./scripts/bench-edge
    ./scripts/bench-accounting
    ./scripts/bench-attacks
    ./scripts/bench-playlists
    ./scripts/bench-transcode

# Origin, edge and a test source; arguments go to `sigma-origin dev`.
run *arguments:
    ./scripts/run {{arguments}}

fmt:
    cargo fmt --all
