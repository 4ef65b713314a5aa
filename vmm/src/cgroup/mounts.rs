//! Where the hierarchies are mounted, and where in them this process is: proc(5) and cgroups(7).

use std::path::{Component, Path, PathBuf};

use super::Version;

/// One cgroup mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) version: Version,
    /// Which group of the hierarchy is at the mount point.
    root: PathBuf,
    point: PathBuf,
    /// Options of the file system; version 1 has its controllers among them.
    options: String,
}

impl Mount {
    /// Whether this is the version 1 hierarchy of `controller`.
    pub(super) fn has(&self, controller: &str) -> bool {
        self.version == Version::V1 && self.options.split(',').any(|option| option == controller)
    }

    /// The directory of `group`; `None` if it is not below this mount.
    pub(super) fn directory(&self, group: &Path) -> Option<PathBuf> {
        let inside = group.strip_prefix(&self.root).ok()?;
        // Groups outside of this process's cgroup namespace are shown with "..".
        let plain = |path: &Path| path.components().all(|part| part != Component::ParentDir);
        (plain(inside) && plain(&self.root)).then(|| self.point.join(inside))
    }
}

/// The cgroup mounts of /proc/self/mountinfo, in its order. Other and malformed lines are passed over.
pub(super) fn mounts(mountinfo: &str) -> Vec<Mount> {
    mountinfo.lines().filter_map(mount).collect()
}

/// proc_pid_mountinfo(5): id, parent, device, root, mount point, options, optional fields, "-", type, source, options
/// of the file system.
fn mount(line: &str) -> Option<Mount> {
    let (mount, filesystem) = line.split_once(" - ")?;
    let mut filesystem = filesystem.split(' ');
    let version = match filesystem.next()? {
        "cgroup" => Version::V1,
        "cgroup2" => Version::V2,
        _ => return None,
    };
    let mut paths = mount.split(' ').skip(3).map(|path| PathBuf::from(unescape(path)));
    let (root, point) = (paths.next()?, paths.next()?);
    let options = filesystem.nth(1)?.to_owned();
    (root.is_absolute() && point.is_absolute()).then_some(Mount { version, root, point, options })
}

/// Space, tab, newline and backslash are written as three octal digits.
fn unescape(text: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .into_iter()
        .fold(text.to_owned(), |text, (escape, plain)| text.replace(escape, plain))
}

/// Where a process is, from its /proc/PID/cgroup.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Membership {
    /// Controllers of version 1, each with the group.
    v1: Vec<(String, PathBuf)>,
    /// The group of version 2.
    pub(super) v2: Option<PathBuf>,
}

impl Membership {
    /// Reads lines `HIERARCHY:CONTROLLER,…:PATH`; version 2 is hierarchy 0 and names no controllers.
    pub(super) fn parse(text: &str) -> Self {
        let mut membership = Self::default();
        for line in text.lines() {
            let mut fields = line.splitn(3, ':');
            let (Some(hierarchy), Some(controllers), Some(path)) =
                (fields.next(), fields.next(), fields.next())
            else {
                continue;
            };
            if hierarchy == "0" && controllers.is_empty() {
                membership.v2 = Some(path.into());
            } else {
                let controllers = controllers.split(',');
                membership.v1.extend(controllers.map(|name| (name.to_owned(), PathBuf::from(path))));
            }
        }
        membership
    }

    /// The group of version 1 that `controller` counts this process to.
    pub(super) fn v1(&self, controller: &str) -> Option<&Path> {
        self.v1.iter().find(|(name, _)| name == controller).map(|(_, path)| path.as_path())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const HYBRID: &str = "\
23 28 0:21 / /proc rw,nosuid shared:13 - proc proc rw
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 master:2 - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 /docker/a\\040b /sys/fs/cgroup/memory ro,relatime - cgroup cgroup rw,memory
40 31 0:37 / /sys/fs/cgroup/systemd rw,relatime - cgroup cgroup rw,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw,relatime - cgroup2 cgroup2 rw
";

    #[test]
    fn mounts_are_found_with_their_controllers() {
        let mounts = mounts(HYBRID);
        assert_eq!(mounts.len(), 4);
        let which = |name| mounts.iter().position(|mount| mount.has(name));
        assert_eq!([which("cpu"), which("cpuacct"), which("memory")], [Some(0), Some(0), Some(1)]);
        assert_eq!([which("pids"), which("systemd"), which("rw,cpu")], [None; 3]);
        assert_eq!(mounts[3].version, Version::V2);
        assert!(!mounts[3].has("rw"));
    }

    #[test]
    fn groups_are_looked_for_below_the_root_of_their_mount() {
        let mounts = mounts(HYBRID);
        let directory = |mount: usize, group: &str| mounts[mount].directory(Path::new(group));
        assert_eq!(directory(0, "/"), Some("/sys/fs/cgroup/cpu,cpuacct".into()));
        assert_eq!(directory(0, "/a/b"), Some("/sys/fs/cgroup/cpu,cpuacct/a/b".into()));
        assert_eq!(directory(1, "/docker/a b/c"), Some("/sys/fs/cgroup/memory/c".into()));
        assert_eq!(directory(1, "/docker/a b"), Some("/sys/fs/cgroup/memory".into()));
        for elsewhere in ["/docker/other", "/docker", "/../x", "relative", ""] {
            assert_eq!(directory(1, elsewhere), None, "{elsewhere}");
        }
        assert_eq!(directory(0, "/../../x"), None);
    }

    #[test]
    fn membership_has_one_group_per_controller() {
        let found =
            Membership::parse("9:name=systemd:/s\n4:memory:/m:x\n1:cpu,cpuacct:/c\n0::/u/v\n\nx\n3:\n");
        assert_eq!(found.v1("memory"), Some(Path::new("/m:x")));
        assert_eq!([found.v1("cpu"), found.v1("cpuacct")], [Some(Path::new("/c")); 2]);
        assert_eq!((found.v1("pids"), found.v1("")), (None, None));
        assert_eq!(found.v2.as_deref(), Some(Path::new("/u/v")));
        assert_eq!(Membership::parse("1:cpu:/\n").v2, None);
    }

    proptest::proptest! {
        #[test]
        fn no_text_panics_and_no_directory_leaves_its_mount(
            text in "([0-9]{1,2} [0-9] [0-9]:[0-9] [/a.\\\\0-9]{0,8} /m[/a ]{0,3} rw - cgroup2? (x y?)? ?rw,cpu\n|\\PC{0,9}\n){0,4}",
            group in "(/|\\.\\.|[a-c]){0,6}",
        ) {
            let _ = Membership::parse(&text);
            for mount in mounts(&text) {
                if let Some(directory) = mount.directory(Path::new(&group)) {
                    proptest::prop_assert!(directory.starts_with(&mount.point));
                    proptest::prop_assert!(!directory.components().any(|part| part == Component::ParentDir));
                }
            }
        }
    }
}
