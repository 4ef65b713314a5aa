//! A root directory with nothing in it.

use std::os::fd::AsFd;

use rustix::fs::CWD;
use rustix::mount::{
    FsMountFlags, FsOpenFlags, MountAttrFlags, MountPropagationFlags, MoveMountFlags, UnmountFlags,
    fsconfig_create, fsconfig_set_string, fsmount, fsopen, mount_change, move_mount, unmount,
};
use rustix::process::{chdir, fchdir, pivot_root};

use super::{JailError, layer};

/// Replaces the root of this process's mount namespace, which must be private to it, by an empty, read-only tmpfs,
/// and lets go of everything that was mounted before. Needs CAP_SYS_ADMIN over the namespace.
///
/// # Errors
/// The kernel refused.
pub fn enter_empty() -> Result<(), JailError> {
    // Nothing that happens here may reach the host's mounts.
    mount_change("/", MountPropagationFlags::REC | MountPropagationFlags::PRIVATE)
        .map_err(layer("make mounts private"))?;
    let config = fsopen("tmpfs", FsOpenFlags::FSOPEN_CLOEXEC).map_err(layer("make an empty file system"))?;
    for (key, value) in [("mode", "0555"), ("size", "4096"), ("nr_inodes", "1")] {
        fsconfig_set_string(config.as_fd(), key, value).map_err(layer("configure the empty file system"))?;
    }
    fsconfig_create(config.as_fd()).map_err(layer("create the empty file system"))?;
    let attributes = MountAttrFlags::MOUNT_ATTR_RDONLY
        | MountAttrFlags::MOUNT_ATTR_NOSUID
        | MountAttrFlags::MOUNT_ATTR_NODEV
        | MountAttrFlags::MOUNT_ATTR_NOEXEC;
    let root = fsmount(config.as_fd(), FsMountFlags::FSMOUNT_CLOEXEC, attributes)
        .map_err(layer("mount the empty file system"))?;
    // The new root must be attached somewhere to become the root. /proc is a directory that exists for sure.
    move_mount(root.as_fd(), "", CWD, "/proc", MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH)
        .map_err(layer("attach the empty root"))?;
    fchdir(&root).map_err(layer("enter the empty root"))?;
    // pivot_root(2), "pivot_root(".", ".")": the old root lands on top of the new one, and goes.
    pivot_root(".", ".").map_err(layer("change the root"))?;
    unmount(".", UnmountFlags::DETACH).map_err(layer("detach the old root"))?;
    chdir("/").map_err(layer("enter the new root"))
}
