//! What these tests need of the machine, said in one line where it is missing.

use std::fs::OpenOptions;

#[test]
fn kvm_and_tun_are_there() {
    for device in ["/dev/kvm", "/dev/net/tun"] {
        let opened = OpenOptions::new().read(true).write(true).open(device);
        assert!(opened.is_ok(), "{device}: {}; WEIR_SKIP_KVM=1 skips what needs it", opened.unwrap_err());
    }
}
