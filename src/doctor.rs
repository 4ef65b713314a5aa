//! `weir doctor`: what weir needs of this host, what is missing, and how to fix it.

use weir_vmm::doctor::{Finding, State};

use crate::cli::Failure;

/// Prints a line for each thing that was examined.
///
/// # Errors
/// If something that weir cannot do without is missing.
pub(crate) fn doctor() -> Result<(), Failure> {
    let mut findings = weir_vmm::kvm::doctor();
    findings.extend([
        network("/dev/net/tun", weir_net::doctor::tun()),
        network("network namespaces", weir_net::doctor::network_namespaces()),
    ]);
    findings.extend(weir_vmm::jail::doctor());
    for finding in &findings {
        print(finding);
    }
    match findings.iter().filter(|finding| finding.state == State::Broken).count() {
        0 => Ok(()),
        broken => Err(anyhow::anyhow!("{broken} of {} things are missing", findings.len()).into()),
    }
}

fn network(name: &'static str, examined: Result<(), weir_net::doctor::Finding>) -> Finding {
    match examined {
        Ok(()) => Finding { name, state: State::Good, detail: "usable".to_owned(), fix: String::new() },
        Err(found) => Finding { name, state: State::Broken, detail: found.problem, fix: found.fix },
    }
}

fn print(finding: &Finding) {
    let mark = match finding.state {
        State::Good => "ok",
        State::Degraded => "better",
        State::Broken => "MISSING",
    };
    println!("{mark:<8}{}: {}", finding.name, finding.detail);
    if !finding.fix.is_empty() {
        println!("        fix: {}", finding.fix);
    }
}
