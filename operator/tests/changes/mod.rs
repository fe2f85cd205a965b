//! What differs between two texts, for snapshots of what one option changes.

/// Lines that are not in both, in their order, with `-` or `+` before them.
pub(crate) fn changed_lines(before: &[String], after: &[String]) -> Vec<String> {
    // Length of the longest common sequence from each pair of lines on.
    let mut common = vec![vec![0; after.len() + 1]; before.len() + 1];
    for (b, old) in before.iter().enumerate().rev() {
        for (a, new) in after.iter().enumerate().rev() {
            common[b][a] = match old == new {
                true => common[b + 1][a + 1] + 1,
                false => common[b + 1][a].max(common[b][a + 1]),
            };
        }
    }
    let (mut b, mut a, mut changed) = (0, 0, Vec::new());
    while b < before.len() || a < after.len() {
        if b < before.len() && a < after.len() && before[b] == after[a] {
            (b, a) = (b + 1, a + 1);
        } else if a == after.len() || (b < before.len() && common[b + 1][a] >= common[b][a + 1]) {
            changed.push(format!("-{}", before[b]));
            b += 1;
        } else {
            changed.push(format!("+{}", after[a]));
            a += 1;
        }
    }
    changed
}
