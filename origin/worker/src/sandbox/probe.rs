//! Attempts to get out, made at every start. Each must be answered EPERM by the filter.
//!
//! The arguments are harmless or invalid on purpose: outside a sandbox every probe either succeeds without lasting
//! effect or fails with another error than EPERM, so a missing filter cannot pass for a working one.
#![expect(
    unsafe_code,
    reason = "the probes are raw system calls: a wrapper could refuse before the kernel does"
)]

use std::ffi::CStr;
use std::io;

use super::SandboxError;

const PATH: &CStr = c"/etc/passwd";
const NO_PATH: &CStr = c"";

struct Probe {
    name: &'static str,
    call: libc::c_long,
    args: [usize; 6],
}

/// Runs every probe.
pub(super) fn all_denied() -> Result<(), SandboxError> {
    for probe in probes() {
        let [a, b, c, d, e, f] = probe.args;
        // SAFETY: pointers among the arguments are null or point to static NUL-terminated strings; no probe lets the
        // kernel write to memory of ours.
        let answer = unsafe { libc::syscall(probe.call, a, b, c, d, e, f) };
        let error = io::Error::last_os_error();
        if answer != -1 || error.raw_os_error() != Some(libc::EPERM) {
            return Err(SandboxError::Escape(probe.name));
        }
    }
    Ok(())
}

fn probes() -> [Probe; 16] {
    let cwd = libc::AT_FDCWD as usize;
    let path = PATH.as_ptr() as usize;
    let no_path = NO_PATH.as_ptr() as usize;
    let stream = libc::SOCK_STREAM as usize;
    let readable = (libc::PROT_READ | libc::PROT_EXEC) as usize;
    let private = (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS) as usize;
    let probe = |name, call, args| Probe { name, call, args };
    [
        probe("openat(/etc/passwd)", libc::SYS_openat, [cwd, path, 0, 0, 0, 0]),
        probe("openat2", libc::SYS_openat2, [cwd, path, 0, 0, 0, 0]),
        probe("socket(AF_INET)", libc::SYS_socket, [libc::AF_INET as usize, stream, 0, 0, 0, 0]),
        probe("socket(AF_UNIX)", libc::SYS_socket, [libc::AF_UNIX as usize, stream, 0, 0, 0, 0]),
        probe("connect", libc::SYS_connect, [usize::MAX, 0, 0, 0, 0, 0]),
        probe("execve", libc::SYS_execve, [no_path, 0, 0, 0, 0, 0]),
        probe("execveat", libc::SYS_execveat, [usize::MAX, no_path, 0, 0, 0, 0]),
        probe("ptrace(PTRACE_TRACEME)", libc::SYS_ptrace, [0; 6]),
        probe("process_vm_readv", libc::SYS_process_vm_readv, [0; 6]),
        probe("kill(0, 0)", libc::SYS_kill, [0; 6]),
        probe("unshare", libc::SYS_unshare, [0; 6]),
        probe("io_uring_setup", libc::SYS_io_uring_setup, [0; 6]),
        probe("bpf", libc::SYS_bpf, [usize::MAX, 0, 0, 0, 0, 0]),
        probe("memfd_create", libc::SYS_memfd_create, [no_path, 0, 0, 0, 0, 0]),
        probe("prctl(PR_GET_DUMPABLE)", libc::SYS_prctl, [libc::PR_GET_DUMPABLE as usize, 0, 0, 0, 0, 0]),
        probe("mmap(PROT_EXEC)", libc::SYS_mmap, [0, 4096, readable, private, usize::MAX, 0]),
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn without_a_sandbox_the_self_test_fails() {
        assert!(matches!(all_denied(), Err(SandboxError::Escape("openat(/etc/passwd)"))));
    }
}
