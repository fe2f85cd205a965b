//! What to do next with a workload's instances: a pure decision.

use super::UpdateStrategy;

/// What is asked for and what there is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct View {
    /// Instances asked for; 0 on removal.
    pub replicas: u16,
    /// How changes reach running instances.
    pub update: UpdateStrategy,
    /// Instances with a record, by ordinal.
    pub instances: Vec<InstanceView>,
}

/// One instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InstanceView {
    /// Its ordinal.
    pub ordinal: u16,
    /// What it is at.
    pub at: At,
}

/// What an instance is at.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum At {
    /// Has no process and may start.
    Idle,
    /// Has no process and must wait.
    Waiting,
    /// Runs.
    Running {
        /// May be used.
        ready: bool,
        /// Runs what was last asked for.
        current: bool,
        /// Somebody asked for its restart, or it does not live.
        restart: bool,
    },
    /// Was asked to end.
    Stopping,
}

/// What to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Action {
    /// Start this instance.
    Start(u16),
    /// Ask this instance to end.
    Stop(u16),
}

/// The next actions. An instance that is stopped starts again when its process has ended.
#[must_use]
pub fn plan(view: &View) -> Vec<Action> {
    let wanted = |ordinal: u16| ordinal < view.replicas;
    let mut actions = Vec::new();
    for ordinal in 0..view.replicas {
        let known = view.instances.iter().find(|i| i.ordinal == ordinal);
        if known.is_none_or(|instance| instance.at == At::Idle) {
            actions.push(Action::Start(ordinal));
        }
    }
    for instance in &view.instances {
        if let At::Running { restart, .. } = instance.at
            && (restart || !wanted(instance.ordinal))
        {
            actions.push(Action::Stop(instance.ordinal));
        }
    }
    if actions.is_empty() && view.update == UpdateStrategy::Rolling {
        actions.extend(next_to_roll(view).map(Action::Stop));
    }
    actions
}

/// The outdated instance to replace next: one that is of no use anyway, else, when all are ready, the last.
fn next_to_roll(view: &View) -> Option<u16> {
    let outdated = |ready: bool| {
        let matching = view.instances.iter().filter(move |instance| {
            matches!(instance.at, At::Running { ready: r, current: false, .. } if r == ready)
        });
        matching.map(|instance| instance.ordinal).max()
    };
    let all_run = view
        .instances
        .iter()
        .all(|i| matches!(i.at, At::Running { .. }));
    let all_ready = view
        .instances
        .iter()
        .all(|i| matches!(i.at, At::Running { ready: true, .. }));
    if !all_run {
        return None;
    }
    outdated(false).or_else(|| if all_ready { outdated(true) } else { None })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const FINE: At = At::Running {
        ready: true,
        current: true,
        restart: false,
    };
    const OLD: At = At::Running {
        ready: true,
        current: false,
        restart: false,
    };
    const UNREADY: At = At::Running {
        ready: false,
        current: true,
        restart: false,
    };

    fn actions(replicas: u16, update: UpdateStrategy, at: &[At]) -> Vec<Action> {
        let instances = (0u16..)
            .zip(at)
            .map(|(ordinal, &at)| InstanceView { ordinal, at });
        plan(&View {
            replicas,
            update,
            instances: instances.collect(),
        })
    }

    #[test]
    fn what_is_missing_starts_and_what_is_too_much_stops() {
        let rolling = UpdateStrategy::Rolling;
        assert_eq!(actions(2, rolling, &[FINE]), [Action::Start(1)]);
        assert_eq!(actions(1, rolling, &[FINE, FINE]), [Action::Stop(1)]);
        assert_eq!(actions(2, rolling, &[FINE, At::Waiting]), []);
        assert_eq!(actions(2, rolling, &[FINE, At::Stopping]), []);
        assert_eq!(
            actions(0, rolling, &[FINE, At::Stopping, At::Idle]),
            [Action::Stop(0)]
        );
    }

    #[test]
    fn one_instance_rolls_at_a_time_and_only_when_all_are_ready() {
        let rolling = UpdateStrategy::Rolling;
        assert_eq!(actions(3, rolling, &[OLD, OLD, OLD]), [Action::Stop(2)]);
        assert_eq!(actions(3, rolling, &[OLD, OLD, At::Stopping]), []);
        assert_eq!(actions(3, rolling, &[OLD, OLD, UNREADY]), []);
        assert_eq!(actions(3, rolling, &[OLD, OLD, FINE]), [Action::Stop(1)]);
        assert_eq!(actions(2, UpdateStrategy::Gated, &[OLD, OLD]), []);
    }

    #[test]
    fn an_outdated_instance_that_never_got_ready_does_not_hold_up_its_replacement() {
        let broken = At::Running {
            ready: false,
            current: false,
            restart: false,
        };
        assert_eq!(
            actions(2, UpdateStrategy::Rolling, &[broken, FINE]),
            [Action::Stop(0)]
        );
    }

    fn any_at() -> impl Strategy<Value = At> {
        prop_oneof![
            Just(At::Idle),
            Just(At::Waiting),
            Just(At::Stopping),
            any::<(bool, bool, bool)>().prop_map(|(ready, current, restart)| At::Running {
                ready,
                current,
                restart
            }),
        ]
    }

    proptest! {
        #[test]
        fn nothing_that_is_wanted_and_current_is_ever_stopped_unasked(
            replicas in 0u16..6, at in proptest::collection::vec(any_at(), 0..8)
        ) {
            for action in actions(replicas, UpdateStrategy::Rolling, &at) {
                match action {
                    Action::Stop(ordinal) => {
                        let stopped = at[usize::from(ordinal)];
                        let unasked = matches!(stopped, At::Running { current: true, restart: false, .. });
                        prop_assert!(!unasked || ordinal >= replicas);
                    }
                    Action::Start(ordinal) => prop_assert!(ordinal < replicas),
                }
            }
        }
    }
}
