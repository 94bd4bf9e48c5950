//! The cage: entered once, before the first media byte, with no way to opt out.
//!
//! Layers, each enough against what it covers: no new privileges, resource limits, no file descriptor but the three
//! pipes, Landlock without one allowed path or port, and a seccomp allow-list ([`seccomp`]) under which opening,
//! connecting, executing and tracing answer EPERM. [`probe`] then tries to get out, at every start. A kernel without
//! seccomp is refused; a missing Landlock is only a warning, because seccomp already denies every open.
//!
//! Must run while the process has one thread. Deliberately absent: namespaces and cgroups (the parent's or the service
//! manager's business, they need rights this process should not have).
#![expect(
    unsafe_code,
    reason = "prctl, setrlimit, close_range and fcntl have no safe wrapper among our dependencies"
)]

mod probe;
mod seccomp;

use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, RawFd};

use landlock::{ABI, Access, AccessFs, AccessNet, Ruleset, RulesetAttr, RulesetStatus, Scope};

/// Address space when the environment names none, in bytes.
const ADDRESS_SPACE_BYTES: u64 = 4 << 30;
/// Below this no ladder opens; a smaller wish is raised to it, in bytes.
const ADDRESS_SPACE_BYTES_MIN: u64 = 512 << 20;
/// Environment variable with the address space limit in bytes; it can move the limit, not remove it.
pub(crate) const ADDRESS_SPACE_VAR: &str = "SIGMA_WORKER_ADDRESS_SPACE_BYTES";
/// More than the pipes, so that `poll` and a duplicated pipe work; opening is denied anyway.
const FILES_MAX: u64 = 16;
const PIPE_BYTES: libc::c_int = 1 << 20;

/// Why the worker refuses to start. Blames the machine, or a defect of ours; a retry on the same kernel never helps.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SandboxError {
    #[error("sandbox: {call} failed: {source}")]
    Call { call: &'static str, source: io::Error },
    #[error("sandbox: seccomp is not available on this kernel, refusing to decode media without it: {0}")]
    Seccomp(String),
    #[error("sandbox: Landlock ruleset refused: {0}")]
    Landlock(#[from] landlock::RulesetError),
    #[error("sandbox self-test failed: {0} was not denied")]
    Escape(&'static str),
}

/// What could not be had but is not required. One log line each.
pub(crate) type Warnings = Vec<&'static str>;

/// Enters the sandbox for good and proves it.
pub(crate) fn enter() -> Result<Warnings, SandboxError> {
    let mut warnings = Warnings::new();
    prctl("prctl(PR_SET_PDEATHSIG)", libc::PR_SET_PDEATHSIG, libc::SIGKILL.unsigned_abs().into())?;
    prctl("prctl(PR_SET_NO_NEW_PRIVS)", libc::PR_SET_NO_NEW_PRIVS, 1)?;
    prctl("prctl(PR_SET_DUMPABLE)", libc::PR_SET_DUMPABLE, 0)?;
    close_from(3)?;
    limit("setrlimit(RLIMIT_CORE)", libc::RLIMIT_CORE, 0)?;
    limit("setrlimit(RLIMIT_NOFILE)", libc::RLIMIT_NOFILE, FILES_MAX)?;
    limit("setrlimit(RLIMIT_AS)", libc::RLIMIT_AS, address_space_bytes())?;
    if !landlock()? {
        warnings.push("sandbox: this kernel has no Landlock; seccomp alone denies file and network access");
    }
    seccomp::enter()?;
    probe::all_denied()?;
    Ok(warnings)
}

/// Asks for a pipe large enough for a key frame, so that neither side waits for the other in the middle of one. Best
/// effort: not every stdin is a pipe, and the kernel may cap unprivileged sizes.
pub(crate) fn widen_pipe(pipe: BorrowedFd<'_>) {
    let fd: RawFd = pipe.as_raw_fd();
    // SAFETY: F_SETPIPE_SZ takes an int and touches no memory of ours; `fd` is open while borrowed.
    unsafe { libc::fcntl(fd, libc::F_SETPIPE_SZ, PIPE_BYTES) };
}

fn address_space_bytes() -> u64 {
    let wish = std::env::var(ADDRESS_SPACE_VAR).ok().and_then(|text| text.parse().ok());
    wish.unwrap_or(ADDRESS_SPACE_BYTES).max(ADDRESS_SPACE_BYTES_MIN)
}

/// Denies every path, port and scope this kernel's Landlock can deny. `Ok(false)` without Landlock.
fn landlock() -> Result<bool, SandboxError> {
    let abi = ABI::V6;
    let status = Ruleset::default()
        .handle_access(AccessFs::from_all(abi))?
        .handle_access(AccessNet::from_all(abi))?
        .scope(Scope::from_all(abi))?
        .create()?
        .restrict_self()?;
    Ok(status.ruleset != RulesetStatus::NotEnforced)
}

fn prctl(call: &'static str, option: libc::c_int, value: libc::c_ulong) -> Result<(), SandboxError> {
    let zero: libc::c_ulong = 0;
    // SAFETY: the options used here take integers only.
    checked(call, unsafe { libc::prctl(option, value, zero, zero, zero) })
}

fn limit(call: &'static str, resource: libc::__rlimit_resource_t, value: u64) -> Result<(), SandboxError> {
    let mut limits = libc::rlimit { rlim_cur: 0, rlim_max: 0 };
    // SAFETY: `limits` is a valid rlimit the call fills.
    checked(call, unsafe { libc::getrlimit(resource, &raw mut limits) })?;
    let value = value.min(limits.rlim_max);
    let limits = libc::rlimit { rlim_cur: value, rlim_max: value };
    // SAFETY: `limits` is a valid rlimit the call only reads.
    checked(call, unsafe { libc::setrlimit(resource, &raw const limits) })
}

fn close_from(first: libc::c_uint) -> Result<(), SandboxError> {
    // SAFETY: nothing in this process owns a descriptor from `first` on: this runs before anything is opened, and
    // descriptors inherited by accident are exactly what must go.
    let done = unsafe { libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0) };
    checked("close_range", if done == 0 { 0 } else { -1 })
}

fn checked(call: &'static str, result: libc::c_int) -> Result<(), SandboxError> {
    if result == 0 {
        return Ok(());
    }
    Err(SandboxError::Call { call, source: io::Error::last_os_error() })
}
