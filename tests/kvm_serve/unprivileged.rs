//! weir without root: a user namespace is enough, given access to /dev/kvm and /dev/net/tun.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use crate::external;
use crate::support::{Weir, get};
use crate::upgrade::upgraded;

/// Runs its arguments as nobody, with device nodes that nobody may open (on this machine only root might).
const AS_NOBODY: &str = r#"
set -e
mount -t tmpfs none "$1/dev"
mknod -m 666 "$1/dev/kvm" c "$((0x$(stat -c %t /dev/kvm)))" "$((0x$(stat -c %T /dev/kvm)))"
mknod -m 666 "$1/dev/tun" c 10 200
mount --bind "$1/dev/kvm" /dev/kvm
mount --bind "$1/dev/tun" /dev/net/tun
shift
exec setpriv --reuid=65534 --regid=65534 --clear-groups "$@"
"#;

#[test]
fn serves_without_root() {
    let directory = tempfile::tempdir().expect("make a directory");
    let everyone = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(directory.path(), everyone).expect("open the directory");
    std::fs::create_dir(directory.path().join("dev")).expect("make dev");
    let binary = directory.path().join("weir");
    std::fs::copy(env!("CARGO_BIN_EXE_weir"), &binary).expect("copy the binary");

    let config = external::config(&external::old_site().to_string());
    let root = directory.path().display().to_string();
    let prefix = ["unshare", "--mount", "sh", "-c", AS_NOBODY, "sh", &root];
    let weir = Weir::start_by(&prefix, &binary, &config);
    let answer = get(weir.http, "/");
    assert_eq!(answer.status, 200, "{answer:?}");
    let outside = get(weir.http, "/old");
    assert_eq!(outside.status, 200, "a server outside is reached, too: {outside:?}");
    assert_eq!(user_of(weir.pid()), "65534", "weir is not root");

    // Nor is the one that takes its place, in the same user namespace.
    let heir = upgraded(&weir, weir.pid());
    weir.logged("stopped");
    assert_eq!((get(weir.http, "/").status, get(weir.http, "/old").status), (200, 200));
    assert_eq!(user_of(heir.pid()), "65534");
}

/// Real user id of a process, as the host sees it.
fn user_of(pid: u32) -> String {
    let status = std::fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("status"))
        .expect("read status");
    let line = status.lines().find(|line| line.starts_with("Uid:")).expect("a Uid line");
    line.split_whitespace().nth(1).expect("a uid").to_owned()
}
