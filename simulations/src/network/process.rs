//! Whether processes still run that have left something behind.

use std::fs;

/// Whether a process is gone. One whose parent has not taken note of that yet counts as gone.
pub(crate) fn is_dead(pid: u32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    // The name of the program, in brackets, may hold anything.
    let state = stat.rsplit_once(") ").and_then(|(_, rest)| rest.chars().next());
    matches!(state, None | Some('Z' | 'X'))
}

#[cfg(test)]
mod tests {
    use std::process::{Command, Stdio};

    use super::*;

    #[test]
    fn a_process_is_dead_when_it_has_ended_even_if_nobody_has_waited_for_it() {
        let mut child = Command::new("cat").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().unwrap();
        assert!(!is_dead(child.id()) && !is_dead(std::process::id()));

        // Its output ends when it does.
        drop(child.stdin.take());
        std::io::copy(&mut child.stdout.take().unwrap(), &mut std::io::sink()).unwrap();
        while !is_dead(child.id()) {
            std::thread::yield_now();
        }
        child.wait().unwrap();
        assert!(is_dead(child.id()));
    }
}
