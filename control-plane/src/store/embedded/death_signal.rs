use std::os::unix::process::CommandExt;
use std::process::Command;

use rustix::io::Errno;
use rustix::process::{Signal, getpid, getppid, set_parent_process_death_signal};

/// Makes the child of `command` get SIGINT when the thread that spawns it ends, so that a killed Clairvoy leaves no
/// server behind. SIGINT is Postgres' fast shutdown: what was committed is on disk when it ends. The thread must therefore live as long as the child.
pub(super) fn die_with_parent(command: &mut Command) {
    let parent = getpid();
    let hook = move || {
        set_parent_process_death_signal(Some(Signal::INT))?;
        // The parent may have died before the line above.
        if getppid() == Some(parent) { Ok(()) } else { Err(Errno::SRCH.into()) }
    };
    // SAFETY: the hook runs between fork and exec. It makes two system calls, takes no lock and allocates nothing.
    #[expect(unsafe_code, reason = "the standard library has no safe way to set a parent death signal")]
    unsafe {
        command.pre_exec(hook);
    }
}
