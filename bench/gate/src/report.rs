//! Says how the figures are beside those that were agreed, and what to do.

use crate::baseline::{Comparison, Figures, Verdict};

/// Prints all figures, a table for each kind.
pub fn print(now: &Figures, agreed: &Figures) {
    let mut group = "";
    for comparison in now.compare(agreed) {
        if comparison.group != group {
            group = comparison.group;
            println!("\n{group:<44}  agreed       now");
        }
        println!("  {comparison}");
    }
}

/// Says what is worse or better than was agreed; whether nothing is worse.
pub fn judge(now: &Figures, agreed: &Figures) -> bool {
    let all = now.compare(agreed);
    let pick = |wanted: &[Verdict]| -> Vec<_> {
        all.iter()
            .filter(|comparison| wanted.contains(&comparison.verdict()))
            .collect()
    };
    let failed = pick(&[Verdict::Worse, Verdict::Unknown]);
    if !failed.is_empty() {
        println!("\nFAILED: more than 5 % worse than agreed, or measured on one side only:");
        list(&failed);
        println!(
            "If that is on purpose, say so: run `scripts/gate.sh --update` and commit\n\
             bench/gate/baseline.toml with the reason. CONTRIBUTING.md says how to find the cause."
        );
    }
    let better = pick(&[Verdict::Better]);
    if !better.is_empty() {
        println!("\nmore than 5 % better than agreed:");
        list(&better);
        println!("Keep that: run `scripts/gate.sh --update` and commit bench/gate/baseline.toml.");
    }
    print_versions(now, agreed);
    failed.is_empty()
}

fn list(some: &[&Comparison]) {
    for comparison in some {
        println!("  {:<36} {comparison}", comparison.group);
    }
}

/// Says where the figures were measured with other versions than those that were agreed.
fn print_versions(now: &Figures, agreed: &Figures) {
    for (program, version) in &now.measured_with {
        let before = agreed.measured_with.get(program);
        if before != Some(version) {
            let before = before.map_or("nothing", String::as_str);
            println!(
                "\nnote: {program} is {version} here, and was {before} for the baseline. When the \
                 figures of a change are\nworse, measure without it too: if those are as bad, \
                 update the baseline in a commit of its own."
            );
        }
    }
}
