//! What control groups need from the host.

use super::root::Cgroups;
use super::survey::{Lack, Place, Survey};
use super::{Controller, Version};
use crate::doctor::{Finding, State};
use crate::message;

/// Looks for the controllers that VMs are limited by, as a weir started like this process would find them.
pub fn doctor() -> Vec<Finding> {
    match Cgroups::survey() {
        Ok(Survey { controllers }) => {
            controllers.into_iter().map(|(controller, found)| finding(controller, found)).collect()
        }
        Err(error) => vec![Finding {
            name: "cgroups",
            state: State::Degraded,
            detail: message(&error),
            fix: "mount -t proc proc /proc".to_owned(),
        }],
    }
}

/// Without, VMs run, but nothing or less keeps one from what is its neighbours'.
fn finding(controller: Controller, found: Result<Place, Lack>) -> Finding {
    let name = match controller {
        Controller::Cpu => "cgroup cpu",
        Controller::Memory => "cgroup memory",
        Controller::Pids => "cgroup pids",
    };
    match found {
        Ok(Place { version, base }) => {
            let version = match version {
                Version::V1 => 1,
                Version::V2 => 2,
            };
            let detail = format!("version {version}, in {}", base.display());
            Finding { name, state: State::Good, detail, fix: String::new() }
        }
        Err(lack) => {
            let fix = fix(controller.name(), &lack);
            Finding { name, state: State::Degraded, detail: lack.to_string(), fix }
        }
    }
}

fn fix(controller: &str, lack: &Lack) -> String {
    match lack {
        Lack::NotMounted => format!(
            "mount -t cgroup2 none /sys/fs/cgroup (or version 1: mount -t cgroup -o {controller} none /sys/fs/cgroup/{controller})"
        ),
        Lack::Disabled => format!("boot with cgroup_enable={controller}, and without cgroup_disable={controller}"),
        Lack::NotGiven(_) => format!(
            "set Delegate=yes in weir's systemd unit; without systemd, echo +{controller} >cgroup.subtree_control in the groups above"
        ),
        Lack::NotDelegated(_) => {
            "set Delegate=yes in weir's systemd unit, or start it by systemd-run --scope -p Delegate=yes".to_owned()
        }
        Lack::Shared(_) => {
            "start weir by systemd-run --scope -p Delegate=yes, or as the first process of its container".to_owned()
        }
        Lack::OutOfSight(_) => {
            "mount the cgroup file system inside of this container, or give it a cgroup namespace of its own".to_owned()
        }
        Lack::Forbidden(_) => {
            "set Delegate=yes in weir's systemd unit, or run weir as root; in a container mount /sys/fs/cgroup read-write".to_owned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_there_needs_no_fix() {
        let found = finding(Controller::Memory, Ok(Place { version: Version::V2, base: "/cg/weir".into() }));
        assert_eq!(
            (found.name, found.state, found.detail.as_str()),
            ("cgroup memory", State::Good, "version 2, in /cg/weir")
        );
        assert!(found.fix.is_empty());
    }

    #[test]
    fn every_lack_is_said_and_has_its_fix() {
        let group = || std::path::PathBuf::from("/cg/user.slice/shell");
        for (lack, detail, fix) in [
            (Lack::NotMounted, "not mounted", "mount -t cgroup -o memory none /sys/fs/cgroup/memory"),
            (Lack::Disabled, "disabled at boot", "cgroup_enable=memory"),
            (
                Lack::NotGiven(group()),
                "not given to /cg/user.slice/shell",
                "echo +memory >cgroup.subtree_control",
            ),
            (Lack::NotDelegated(group()), "/cg/user.slice/shell is not delegated", "Delegate=yes"),
            (
                Lack::Shared(group()),
                "/cg/user.slice/shell has other processes",
                "systemd-run --scope -p Delegate=yes",
            ),
            (Lack::OutOfSight(group()), "group /cg/user.slice/shell is not mounted here", "cgroup namespace"),
            (Lack::Forbidden(group()), "/cg/user.slice/shell cannot be written", "read-write"),
        ] {
            let found = finding(Controller::Memory, Err(lack));
            assert_eq!((found.state, found.detail.as_str()), (State::Degraded, detail));
            assert!(found.fix.contains(fix), "{found:?}");
        }
    }
}
