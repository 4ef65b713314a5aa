//! `[pool.NAME.limits]`: what one VM may take from its neighbours.

use std::num::NonZeroU64;
use std::ops::RangeInclusive;

use toml::de::DeValue;

use crate::model::{Thousandths, VmLimits};
use crate::reader::Reader;
use crate::values::{decimal, integer, size};

/// Smallest and largest quota, CPUs: the kernel takes no less than 1 ms of each 100 ms.
const QUOTA: RangeInclusive<Thousandths> = Thousandths(10)..=Thousandths(1_024_000);

pub(crate) fn read(table: &mut Reader<'_>) -> Option<VmLimits> {
    let defaults = VmLimits::default();
    // All keys are read before any failure ends this function.
    let cpu_weight = table.read("cpu_weight", integer(1..=10_000)).or(defaults.cpu_weight);
    let cpu_quota = table.read("cpu_quota", milli_cpus).optional();
    let send_rate = table.read("send_rate", rate).optional();
    let receive_rate = table.read("receive_rate", rate).optional();
    let send_packets = table.read("send_packets", packets).optional();
    let receive_packets = table.read("receive_packets", packets).optional();
    let log_lines = table.read("log_lines", integer(1..=1_000_000)).or(defaults.log_lines);
    Some(VmLimits {
        cpu_weight: cpu_weight?.value,
        cpu_quota: cpu_quota?.map(|quota| quota.value),
        send_rate: send_rate?.map(|rate| rate.value),
        receive_rate: receive_rate?.map(|rate| rate.value),
        send_packets: send_packets?.map(|packets| packets.value),
        receive_packets: receive_packets?.map(|packets| packets.value),
        log_lines: log_lines?.value,
    })
}

/// Bytes per second.
fn rate(value: &DeValue<'_>) -> Result<NonZeroU64, String> {
    NonZeroU64::new(size(value)?)
        .ok_or_else(|| "must be more than zero; leave it out for no limit".to_owned())
}

/// Packets per second: at most more than any link carries, and far from where sums overflow.
fn packets(value: &DeValue<'_>) -> Result<NonZeroU64, String> {
    let packets = integer(1..=1_000_000_000_u64)(value)?;
    Ok(NonZeroU64::new(packets).expect("the range begins at one"))
}

/// A number of CPUs, in thousandths.
fn milli_cpus(value: &DeValue<'_>) -> Result<u32, String> {
    let Thousandths(milli) = decimal(QUOTA)(value)?;
    Ok(u32::try_from(milli).expect("the range ends below"))
}
