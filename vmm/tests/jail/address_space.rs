//! How much a process that was taken over can map, with the whole jail on.

use crate::harness::{Privilege, Variant, launcher};
use crate::tests;

fn a_blank_child_has_room_for_the_largest_guest_and_no_more(privilege: Privilege) {
    let mut launcher = launcher(privilege, Variant::default());
    let report = launcher.report(&["map", "60", "320", "3328", "3500"]);
    assert_eq!(report, "ok 0, ok 0, ok 0, no, PermissionDenied");
}

fn a_child_is_left_the_room_that_its_guest_needs(privilege: Privilege) {
    let mut launcher = launcher(privilege, Variant::default());
    for (guest, expected) in
        [("16", "ok 0, no, no, no, PermissionDenied"), ("256", "ok 0, ok 0, no, no, PermissionDenied")]
    {
        let report = launcher.report(&["limit-and-map", guest, "16", "256", "321", "3500"]);
        assert_eq!(report, expected, "a guest of {guest} MiB");
    }
}

tests![
    a_blank_child_has_room_for_the_largest_guest_and_no_more,
    a_child_is_left_the_room_that_its_guest_needs,
];
