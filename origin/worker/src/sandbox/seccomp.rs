//! The system calls a decoding, scaling and encoding process needs, and no others.
//!
//! Everything absent answers EPERM, so that a library probing `/proc/cpuinfo` shrugs instead of dying. `clone3` answers
//! ENOSYS, because its flags are behind a pointer no filter can follow and glibc then falls back to `clone`, whose flags
//! are checked: threads yes, processes no. Memory is never executable.
#![deny(clippy::disallowed_methods)]

use std::collections::BTreeMap;

use seccompiler::{
    BackendError, BpfProgram, SeccompAction, SeccompCmpArgLen, SeccompCmpOp, SeccompCondition, SeccompFilter,
    SeccompRule, TargetArch,
};

use super::SandboxError;

/// Allowed whatever the arguments: they move no data in or out but through descriptors already held.
const ALWAYS: &[libc::c_long] = &[
    libc::SYS_read,
    libc::SYS_readv,
    libc::SYS_write,
    libc::SYS_writev,
    libc::SYS_close,
    libc::SYS_fstat,
    libc::SYS_lseek,
    libc::SYS_ppoll,
    libc::SYS_munmap,
    libc::SYS_mremap,
    libc::SYS_madvise,
    libc::SYS_brk,
    libc::SYS_futex,
    libc::SYS_membarrier,
    libc::SYS_rseq,
    libc::SYS_set_robust_list,
    libc::SYS_set_tid_address,
    libc::SYS_clock_gettime,
    libc::SYS_clock_getres,
    libc::SYS_clock_nanosleep,
    libc::SYS_nanosleep,
    libc::SYS_gettimeofday,
    libc::SYS_restart_syscall,
    libc::SYS_sched_yield,
    libc::SYS_sched_getaffinity,
    libc::SYS_sched_getparam,
    libc::SYS_sched_getscheduler,
    libc::SYS_getcpu,
    libc::SYS_getpid,
    libc::SYS_gettid,
    libc::SYS_getrandom,
    libc::SYS_getrusage,
    libc::SYS_sysinfo,
    libc::SYS_uname,
    libc::SYS_sigaltstack,
    libc::SYS_rt_sigaction,
    libc::SYS_rt_sigprocmask,
    libc::SYS_rt_sigreturn,
    libc::SYS_exit,
    libc::SYS_exit_group,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_poll,
    #[cfg(target_arch = "x86_64")]
    libc::SYS_time,
];

/// `PR_SET_VMA`: allocators name their mappings with it.
const PR_SET_VMA: u64 = 0x5356_4d41;

/// Installs both filters on every thread.
pub(super) fn enter() -> Result<(), SandboxError> {
    let refused = |e: &dyn std::fmt::Display| SandboxError::Seccomp(e.to_string());
    for program in programs().map_err(|e| refused(&e))? {
        seccompiler::apply_filter_all_threads(&program).map_err(|e| refused(&e))?;
    }
    Ok(())
}

/// The allow-list comes last: the first one is installed while `prctl` and `seccomp` are still allowed.
fn programs() -> Result<[BpfProgram; 2], BackendError> {
    let arch = TargetArch::try_from(std::env::consts::ARCH)?;
    let no_clone3 = SeccompFilter::new(
        BTreeMap::from([(libc::SYS_clone3, Vec::new())]),
        SeccompAction::Allow,
        SeccompAction::Errno(libc::ENOSYS.unsigned_abs()),
        arch,
    )?;
    let allow = SeccompFilter::new(
        rules()?,
        SeccompAction::Errno(libc::EPERM.unsigned_abs()),
        SeccompAction::Allow,
        arch,
    )?;
    Ok([no_clone3.try_into()?, allow.try_into()?])
}

fn rules() -> Result<BTreeMap<i64, Vec<SeccompRule>>, BackendError> {
    let mut rules: BTreeMap<i64, Vec<SeccompRule>> = ALWAYS.iter().map(|&call| (call, Vec::new())).collect();
    // The earlier filter answers for it with ENOSYS, which outranks this permission.
    rules.insert(libc::SYS_clone3, Vec::new());
    let exec = libc::PROT_EXEC.unsigned_abs().into();
    rules.insert(libc::SYS_mmap, vec![only(2, SeccompCmpOp::MaskedEq(exec), 0)?]);
    rules.insert(libc::SYS_mprotect, vec![only(2, SeccompCmpOp::MaskedEq(exec), 0)?]);
    let thread = libc::CLONE_THREAD.unsigned_abs().into();
    rules.insert(libc::SYS_clone, vec![only(0, SeccompCmpOp::MaskedEq(thread), thread)?]);
    let mut names = Vec::new();
    for option in
        [libc::PR_SET_NAME.unsigned_abs().into(), libc::PR_GET_NAME.unsigned_abs().into(), PR_SET_VMA]
    {
        names.push(only(0, SeccompCmpOp::Eq, option)?);
    }
    rules.insert(libc::SYS_prctl, names);
    // Duplicating and asking about descriptors already held, which std does.
    let mut descriptors = Vec::new();
    for command in [libc::F_DUPFD_CLOEXEC, libc::F_GETFD, libc::F_GETFL] {
        descriptors.push(only(1, SeccompCmpOp::Eq, command.unsigned_abs().into())?);
    }
    rules.insert(libc::SYS_fcntl, descriptors);
    // Reading limits of this process, changing none.
    rules.insert(
        libc::SYS_prlimit64,
        vec![SeccompRule::new(vec![
            SeccompCondition::new(0, SeccompCmpArgLen::Dword, SeccompCmpOp::Eq, 0)?,
            SeccompCondition::new(2, SeccompCmpArgLen::Qword, SeccompCmpOp::Eq, 0)?,
        ])?],
    );
    // What abort() needs: a signal to a thread of this process.
    let own = std::process::id().into();
    rules.insert(libc::SYS_tgkill, vec![only(0, SeccompCmpOp::Eq, own)?]);
    Ok(rules)
}

fn only(argument: u8, operator: SeccompCmpOp, value: u64) -> Result<SeccompRule, BackendError> {
    SeccompRule::new(vec![SeccompCondition::new(argument, SeccompCmpArgLen::Qword, operator, value)?])
}
