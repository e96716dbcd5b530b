//! Whoever is woken by an alarm finds its entry.

use std::collections::BTreeSet;

#[test]
fn every_alarm_has_its_entry_in_the_runbook_and_every_entry_its_alarm() {
    let template = include_str!("../../infra/template.yaml");
    let alarms: BTreeSet<_> = template
        .lines()
        .filter_map(|line| line.trim().strip_prefix("AlarmName: !Sub ${AWS::StackName}-"))
        .collect();
    let runbook = include_str!("../../infra/RUNBOOK.md");
    let entries: BTreeSet<_> = runbook.lines().filter_map(|line| line.strip_prefix("### STACK-")).collect();
    assert!(alarms.len() > 20, "{alarms:?}");
    assert_eq!(alarms, entries);
}
